"""Is a gradient whole? One that arrives by one of two paths is finite, alive and wrong."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from labkit.probes.report import Culprit, Link, Op, Report
from labkit.probes.verdict import Verdict

PART = 0.02  # of the true gradient's length: far above float32's rounding, below any lost path
NOTHING = 1e-6  # of the longest gradient: a bias before BatchNorm has a true gradient of 0
BY_NAME = {"_local_scalar_dense": "item", "detach": "detach", "tensor": "tensor"}

Gradients = dict[str, Tensor]


def gradients(loss: Tensor, model: nn.Module) -> Gradients:
    """Gradient of every trainable parameter, in float64; zeros where no graph leads."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = (None,) * len(named)
    if loss.requires_grad and named:
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    pairs = zip(named.items(), found, strict=True)
    return {name: (torch.zeros_like(p) if g is None else g).double() for (name, p), g in pairs}


def errors(mine: Gradients, truth: Gradients) -> dict[str, float]:
    """Length of each gradient's error, as a share of the true gradient's length."""
    lengths = {name: float(truth[name].norm()) for name in mine}
    least = NOTHING * max(lengths.values(), default=0.0)
    return {n: float((mine[n] - truth[n]).norm()) / lengths[n] for n in mine if lengths[n] > least}


def judged(report: Report, mine: Gradients, truth: Gradients) -> Report:
    """The report, or one that says *wrong* where a gradient lives and is not the true one.

    A tracer sees that a path is cut, not whether it was meant to be: a stop-gradient is a tool.
    Only who knows the true gradient can tell.
    """
    off = {name: error for name, error in errors(mine, truth).items() if error > PART}
    told = (Verdict.WRONG, Verdict.SEVERED)  # the tracer has the culprit, not all whom it harms
    if report.verdict not in (Verdict.HEALTHY, Verdict.VANISHING, *told) or not off:
        return report
    alive = {f.name for f in report.parameters if f.word in ("ok", "vanishing")} & off.keys()
    fates = tuple(replace(f, word="wrong") if f.name in alive else f for f in report.parameters)
    if report.verdict in told:
        return replace(report, parameters=fates)
    cut = _first_cut(report)
    remark = f"gradients alive, and wrong by up to {share(max(off.values()))}"
    links = (Link("cut", cut.index, f"{_named(cut)} at {cut.place}"),)
    links += tuple(Link("harmed", None, f"{name}: wrong by {share(off[name])}") for name in off)
    return replace(
        report, verdict=Verdict.WRONG, culprit=blamed(cut, remark), parameters=fates, chain=links
    )


def share(part: float) -> str:
    """A share in percent, to one digit: what training made of the weights decides the others."""
    return f"{float(f'{part:.1g}'):.0%}"


def blamed(op: Op, remark: str, name: str = "") -> Culprit:
    """An op as the culprit, under another name if one is given."""
    return Culprit(
        phase=op.phase,
        op=name or _named(op),
        file=op.file,
        line=op.line,
        source=op.source,
        module=op.module,
        function=op.function,
        step=op.step,
        inputs=op.inputs,
        position=op.index,
        remark=remark,
    )


def wrong(report: Report, op: Op, remark: str) -> Report:
    """The same report, *wrong*, with an op to blame: the truth is known here, not to the tracer."""
    return replace(report, verdict=Verdict.WRONG, culprit=blamed(op, remark, op.name))


def _first_cut(report: Report) -> Op:
    """The first op above the loss where a parameter's graph ends; else the loss itself."""
    loss = next(op.forward for op in report.ops if op.phase == "backward")
    above, todo = set(), [loss]
    while todo:
        index = todo.pop()
        if index not in above:
            above.add(index)
            todo.extend(report.ops[index].parents)
    cuts = (op for op in report.ops if op.index in above and _ends_here(op))
    return next(cuts, report.ops[loss])


def _ends_here(op: Op) -> bool:
    """Does a graph end in this op? zeros_like reads no value, so that it has none to lose."""
    return op.cut and op.gradient is None and not op.name.endswith("_like")


def _named(op: Op) -> str:
    return BY_NAME.get(op.name, "no_grad") if op.cut else op.name
