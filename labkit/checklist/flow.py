"""Which parameters are trained, which the optimizer holds, and where a graph is cut."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from labkit.guide.leaves import finite
from labkit.guide.slope import slope_ratio
from labkit.probes.report import Report

CUT_BY = {"no_grad": ("no_grad",), "detach": ("detach", "data", "data detach")}


def members(model: nn.Module, optimizer) -> dict[str, str]:
    """Faults of who is in the optimizer and who is not; "" where there is none."""
    held = [p for group in optimizer.param_groups for p in group["params"]]
    names = {id(p): name for name, p in model.named_parameters()}
    frozen = [names.get(id(p), "a tensor") for p in held if not p.requires_grad]
    missing = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and all(q is not p for q in held)
    ]
    foreign = [p for p in held if id(p) not in names]
    twice = len(held) - len({id(p) for p in held})
    faults = {"trained": "", "held": "", "in the optimizer": ""}
    if frozen:
        faults["trained"] = f"{few(frozen)} in the optimizer, requires_grad is False"
    if foreign or twice:
        faults["held"] = f"{len(foreign)} tensors are not the model's, {twice} are held twice"
    if missing:
        faults["in the optimizer"] = f"{few(missing)}: no optimizer holds it"
    return faults


def cut(report: Report, connected: bool) -> tuple[str, str]:
    """Which box a cut belongs to, and where it is; ("", "") if there is none."""
    culprit = report.culprit
    if report.verdict == "severed" and culprit is not None:
        found = (key for key, ops in CUT_BY.items() if culprit.op in ops)
        return next(found, "values"), str(culprit)
    return ("", "") if connected else ("no_grad", "the loss has no graph at all")


def slope_fault(loss: Callable[[], Tensor], model: nn.Module, allowed: float | None) -> str:
    """The first layer whose finite difference is too far from what its gradient predicts."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if allowed is None or not named:
        return ""
    grads = torch.autograd.grad(loss(), list(named.values()), allow_unused=True)
    layers: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for (name, p), grad in zip(named.items(), grads, strict=True):
        if grad is not None and finite(grad) and not grad.is_sparse:
            layers.setdefault(name.rpartition(".")[0], []).append((p, grad))
    for layer, pairs in layers.items():
        ratio = slope_ratio(loss, [p for p, _ in pairs], [g for _, g in pairs])
        if ratio is not None and abs(ratio - 1) > allowed:
            where = layer or "the model"
            return f"{where}: a finite difference gives {ratio:.2f} times the slope of the gradient"
    return ""


def few(names: Sequence[str]) -> str:
    """The first of some names."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
