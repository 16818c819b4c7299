"""Did the step happen? A verdict on what the optimizer got and did, not on what arrived."""

from dataclasses import replace

from torch import Tensor, nn

from labkit.failures._whole import blamed
from labkit.probes.report import Fate, Report
from labkit.probes.stats import histogram
from labkit.probes.verdict import Verdict

BEYOND = 1.001  # of the bound: float32 rounds the scaled gradient
OFF = 1e-3  # of the length of the step, relative to float64; rounding stays near 1e-6
STUCK = 0.9  # share of the entries with a gradient that did not move


def taken_steps(model: nn.Module, before: list[Tensor]) -> tuple[Fate, ...]:
    """What became of each parameter, by the gradient that the optimizer got.

    Args:
        model: after the step, its gradients still there.
        before: its parameters as they were.
    """
    pairs = zip(model.named_parameters(), before, strict=True)
    return tuple(_fate(name, p, old) for (name, p), old in pairs)


def _fate(name: str, p: nn.Parameter, before: Tensor) -> Fate:
    asked = p.grad != 0
    still = float(((p == before) & asked).sum() / asked.sum().clamp(min=1))
    word = "not updated" if still > STUCK else "ok"
    word = word if asked.any() else "zero"
    word = word if p.isfinite().all() else "nan"
    return Fate(name, tuple(p.shape), word, histogram(p.grad), float(p.grad.double().norm()))


def judged(report: Report, fates: tuple[Fate, ...], bad: int, share: float, bound: float) -> Report:
    """The report on the step that was taken, not on the gradients as they arrived.

    The tracer calls a gradient of 1e21 *exploding*. Behind a clip it is not, if every parameter
    takes a step, none is longer than the bound, and all together are as long as in float64.

    Args:
        report: the tracer's.
        fates: from `taken_steps`.
        bad: how many gradients arrived that were not finite.
        share: length of the step, as a share of the true one.
        bound: of the length of each parameter's gradient.
    """
    words = [fate.word for fate in fates]
    still = words.count("not updated")
    if "nan" in words:
        return replace(report, verdict=Verdict.NAN, parameters=fates)
    if bad:  # the step was refused, and the fault lies above
        return report
    if report.verdict in (Verdict.INF, Verdict.DEAD):
        return replace(report, parameters=fates)
    if "zero" in words:
        return _blamed(report, Verdict.DEAD, fates, "every gradient is zero behind it")
    if still < len(words) and not abs(share - 1) <= OFF:
        return _blamed(report, Verdict.WRONG, fates, f"the step has {share:.0e} of its length")
    if still:
        return _blamed(report, Verdict.FROZEN, fates, f"{still} of {len(words)} do not move")
    if (longest := max(fate.norm for fate in fates)) > BEYOND * bound:
        return _blamed(report, Verdict.EXPLODING, fates, f"a gradient of length {longest:.0e}")
    return replace(report, verdict=Verdict.HEALTHY, culprit=None, chain=(), parameters=fates)


def _blamed(report: Report, verdict: Verdict, fates: tuple[Fate, ...], remark: str) -> Report:
    """The same report; to blame is the line that measures the gradients, or that scales them."""
    last = max(op.index for op in report.ops if op.phase == "backward")
    after = [op for op in report.ops[last + 1 :] if op.phase != "source" and op.file]
    first = ("mul", "norm", "") if verdict is Verdict.FROZEN else ("norm", "mul", "")
    named = (op for word in first for op in after if word in op.name)
    op = next(named, report.ops[last])
    return replace(report, verdict=verdict, culprit=blamed(op, remark), chain=(), parameters=fates)
