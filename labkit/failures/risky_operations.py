"""Risky operations: where value and gradient leave the floats, to the bit.

A table of dangers is worth its exact edges. Each edge is found by bisection over the floats of
each dtype, for the value and for the gradient apart: the gradient often leaves first. One
operation has one argument here, so a histogram has one bar: it stays for the panel's order, and
the notebook shows the number line in its place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from math import inf, isfinite, log10, nan

import torch
from torch import Tensor, nn

from labkit.bench import Claim, Reading, choice, dial
from labkit.failures._edges import Span, spans
from labkit.failures._matrix import ROWS
from labkit.failures._whole import wrong
from labkit.probes.report import Report
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict

Form = Callable[[Tensor], Tensor]
DTYPES = ("float16", "bfloat16", "float32", "float64")


def root(x: Tensor) -> Tensor:
    """Length of each row, as it is written on paper."""
    return x.square().sum(-1).sqrt()


def clamped(x: Tensor) -> Tensor:
    """The guide's: the argument of the root is never below 0. It never was."""
    return x.square().sum(-1).clamp(min=0.0).sqrt()


def shifted(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Never at zero; too long for what is short, and no help for what is long."""
    return (x.square().sum(-1) + eps).sqrt()


def norm(x: Tensor) -> Tensor:
    """The library's norm: its gradient at 0 is 0, but it squares as well."""
    return torch.linalg.vector_norm(x, dim=-1)


def scaled(x: Tensor) -> Tensor:
    """Measure in units near the largest entry, a power of two: nothing is rounded by it."""
    largest = x.detach().abs().amax(-1, keepdim=True)
    unit = torch.where(largest == 0, 1.0, largest.log2().floor().exp2())
    return unit[..., 0] * torch.linalg.vector_norm(x / unit, dim=-1)


TITLE = "Risky operations"
NICKNAME = "every number has an edge"
SYMPTOM = (
    "All inputs are finite, the formula is right, and the result is Inf, NaN or without slope."
)
CLAIM = Claim(
    quote="NaN/Inf产生点完全图谱",
    translation="the complete atlas of the places where NaN and Inf are born",
    verdict="false",
    truth="It has seven operations, no dtype and no gradient. log, division and lgamma do other "
    "things than it says, and each of its guards lets something through.",
)
SOURCES = (
    "IEEE 754-2019, sections 3.3 and 7: the formats, and what overflow and division by zero give",
    "Blue (1978), A Portable Fortran Program to Find the Euclidean Norm of a Vector, ACM TOMS 4, "
    "15: scale before you square",
)
CARD = {
    "cause": "A square, an exponential or a quotient leaves the range of the dtype on the way to a "
    "result that would fit.",
    "repair": "Know the edges of your dtype; scale, or use the operation that never goes there.",
    "proof": "Value and gradient are finite at both ends of the range that the result can have.",
}
HINT = (
    "a square leaves the range at half its exponents: what is large becomes Inf, what is small "
    "becomes 0 with its gradient exactly zero, and at 0 the root has no slope. What goes into the "
    "square must be near 1 in size."
)
HINTS = dict.fromkeys((Verdict.NAN, Verdict.INF, Verdict.DEAD, Verdict.WRONG), HINT)
FORMS: dict[str, Form] = {
    "none": root,
    "guide": clamped,
    "eps": shifted,
    "norm": norm,
    "scaled": scaled,
}
FORM_KNOB = "guard"
MAP = {"power": range(-36, 37, 6), "op": tuple(ROWS)}
OFF = 2e-2  # of the value, relative to float64; bfloat16 rounds by 4e-3, a few times here


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    op: str = choice("length", ROWS, "the operation")
    x: float = dial(0.5, -120, 120, 0.5, "", "its argument")
    power: float = dial(0.0, -37, 38, 1, "log10", "unit of the argument")
    dtype: str = choice("float32", DTYPES, "of argument and result")
    guard: str = choice("none", FORMS, "the guide's guard, or for op length the way to take it")


CASES = {
    "healthy": Settings(),
    "broken": Settings(x=3.0, power=20.0),
    "repaired": Settings(x=3.0, power=20.0, guard="scaled"),
    "exp": Settings(op="exp", x=89.0),
    "half": Settings(op="exp", x=11.5, dtype="float16"),
    "gradient only": Settings(op="division", x=3.0, power=-20.0),
}
CHECKS = (
    (Settings(x=3.0, power=-24.0), Verdict.HEALTHY, ""),
    (Settings(x=3.0, power=2.0, dtype="float16"), Verdict.HEALTHY, ""),
    (Settings(x=0.0), Verdict.HEALTHY, HINT),  # where its gradient is 0, which is excused
)


class Argument(nn.Module):
    """One number that is trained, and an operation on it."""

    def __init__(self, x: Tensor, f: Form):
        super().__init__()
        self.x, self.f = nn.Parameter(x), f

    def forward(self) -> Tensor:
        """The result, a scalar."""
        return self.f(self.x).sum()


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """One operation on one argument, forward and backward.

    Args:
        settings: the knobs.
        repair: for op *length*: a function of rows, shape (row, entry), to lengths, shape (row,).
    """
    size = torch.tensor([settings.x], dtype=torch.float64) * 10.0**settings.power
    x = size.to(getattr(torch, settings.dtype))
    model = Argument(x, function(settings.op, settings.guard, repair))
    report = trace(model, model=model)
    value = report.losses[0]
    truth = float(function(settings.op, "scaled")(x.detach().double()))
    # The tracer cannot know: a value that vanished, or that a constant replaced, is finite.
    off = isfinite(truth) and not abs(value - truth) <= OFF * abs(truth)
    if report.verdict in (Verdict.HEALTHY, Verdict.EXPLODING) and off:
        report = _wrong(report, f"{value:.3g} where float64 has {truth:.3g}")
    return Reading(settings, report.verdict, report, value, truth)


def function(op: str, guard: str = "none", repair: Form | None = None) -> Form:
    """The operation, elementwise, with a guard in front of it."""
    if op == "length":
        return partial(length, form=repair or FORMS[guard])
    row = ROWS[op]
    return (lambda x: row.f(row.guarded(x))) if guard == "guide" else row.f


def length(x: Tensor, form: Form) -> Tensor:
    """Length of the row (3x, 4x) / 5, which is |x|."""
    return form(x[:, None] * x.new_tensor([0.6, 0.8]))


@lru_cache(maxsize=256)
def edges(op: str, dtype: str = "float32", guard: str = "none") -> tuple[Span, ...]:
    """The number line of a dtype, cut where value or gradient change, to the bit."""
    return spans(function(op, guard), getattr(torch, dtype))


def risks(op: str, dtype: str = "float32", guard: str = "none") -> list[Span]:
    """Where value or gradient are not finite, or the gradient is zero, for finite arguments.

    lgamma is told from -1 on: below, it has a pole at every whole number.
    """
    least = -1.0 if op == "lgamma" else -inf
    found = [s for s in edges(op, dtype, guard) if s.bad or s.dead]
    return [s for s in found if s.high >= least and (s.low < s.high or isfinite(s.low))]


def beside(op: str, dtype: str = "float32") -> str:
    """The guide's row, what is measured in its place, and what is left behind its guard."""
    lines = [f"{op}: {ROWS[op].told}"]
    for word, guard in (("measured", "none"), ("guarded", "guide")):
        lines += [f"  {word:8}  {span}" for span in risks(op, dtype, guard)]
    return "\n".join(lines)


def profile(op: str, xs: list[float], dtype: str = "float32") -> dict[str, list[float]]:
    """log10 of the sizes of value and gradient at some arguments; NaN where not finite."""
    x = torch.tensor(xs, dtype=getattr(torch, dtype), requires_grad=True)
    y = function(op)(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    return {name: [_log(v) for v in t.tolist()] for name, t in (("value", y), ("gradient", slope))}


def _log(value: float) -> float:
    return log10(abs(value)) if value and isfinite(value) else nan


def _wrong(report: Report, remark: str) -> Report:
    """The same report, the last op of the forward pass to blame."""
    op = [op for op in report.ops if op.phase == "forward" and op.file and op.name != "sum"][-1]
    return wrong(report, op, remark)
