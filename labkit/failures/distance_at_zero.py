"""Distance at zero: a root whose value is right and whose slope is infinite.

The energy distance compares each cell with every other, and in its self terms also with itself.
There the distance is 0, the slope of the root is 1/0, and 0 times infinity is NaN: the loss is
finite, and after one step every parameter is NaN.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from labkit.bench import Claim, Reading, choice, dial
from labkit.cells.data import load_pbmc
from labkit.failures._whole import wrong
from labkit.models.energy import energy_distance, energy_distance_guide
from labkit.models.vae import embed
from labkit.probes.report import Report
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict
from labkit.training.train import trained_vae

Form = Callable[[Tensor], Tensor]


def root(gap: Tensor) -> Tensor:
    """Length of each row; at a zero row its slope is 0 times infinity."""
    return gap.square().sum(-1).sqrt()


def clamped(gap: Tensor) -> Tensor:
    """The guide's: at exactly 0 the clamp passes the gradient, and below it never was."""
    return gap.square().sum(-1).clamp(min=0.0).sqrt()


def masked(gap: Tensor) -> Tensor:
    """Choose the zero away after the root: the backward pass has met it already."""
    square = gap.square().sum(-1)
    return torch.where(square > 0, square.sqrt(), 0.0)


def shifted(gap: Tensor, eps: float = 1e-8) -> Tensor:
    """Never at zero: each distance is too large, a zero distance by the root of eps."""
    return (gap.square().sum(-1) + eps).sqrt()


def norm(gap: Tensor) -> Tensor:
    """The library's own length; its gradient at zero is defined as 0."""
    return torch.linalg.vector_norm(gap, dim=-1)


def double_where(gap: Tensor) -> Tensor:
    """Choose the zero away before the root, and put it back after it."""
    square = gap.square().sum(-1)
    zero = square == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())


TITLE = "Distance at zero"
NICKNAME = "everyone is a neighbour of himself"
SYMPTOM = "The loss is finite and plausible, and after one step every parameter is NaN."
CLAIM = Claim(
    quote="sqrt(x) | x < 0 | clamp x到>=0",
    translation="sqrt is NaN where x < 0; clamp x to >= 0",
    verdict="incomplete guard",
    truth="It protects the value. At x = 0 the clamp passes the gradient, the slope of the root "
    "is infinite, and infinity times 0 is NaN. Every cell's distance to itself is such a 0.",
)
SOURCES = (
    "Székely and Rizzo (2013), Energy statistics, J. Stat. Plan. Inference 143, 1249",
    "Rockafellar (1970), Convex Analysis, section 23: the subgradients of a norm at 0 are the "
    "unit ball, and 0 is one of them",
)
CARD = {
    "cause": "The slope of a root at 0 is infinite; the zero distances are those of a cell to "
    "itself, or to its twin.",
    "repair": "Choose the zeros away before the root, or take a norm whose gradient there is 0.",
    "proof": "The gradient is finite where two cells coincide, and the value does not change.",
}
HINTS = {
    Verdict.NAN: "the value is right, the slope of the root at 0 is infinite. What comes after "
    "the root is too late: the backward pass goes through it all the same. Give the root "
    "something else than 0, and put the 0 back afterwards.",
    Verdict.WRONG: "finite, but far from float64. Look for a constant that is too large: what is "
    "added to a squared distance has a unit, and here it is large beside the distances.",
}
FORMS: dict[str, Form] = {
    "root": root,
    "clamp": clamped,
    "where": masked,
    "eps": shifted,
    "vector_norm": norm,
    "double where": double_where,
}
FORM_KNOB = "length"
MAP = {"scale": range(-6, 5), "eps": range(-48, 1, 6)}
TRUE = 1e-4  # of the value, relative to float64; rounding of one step stays near 1e-7


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    gap: float = dial(0.0, -12, 0, 0.5, "log10", "how far one target cell is from a moved one")
    pairs: str = choice("others", ("others", "all"), "within a cloud: also a cell with itself?")
    length: str = choice("root", FORMS, "length of a difference of two cells")
    scale: float = dial(0.0, -6, 4, 1, "log10", "unit of the latent space")
    dtype: str = choice("float32", ("float32", "float64"), "of cells and operator")
    eps: float = dial(-8.0, -48, 0, 0.5, "log10", "the constant of the length that has one")


CASES = {
    "healthy": Settings(),
    "broken": Settings(pairs="all"),
    "repaired": Settings(pairs="all", length="double where"),
    "twins": Settings(gap=-12.0),
}


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """One step of an operator and a shift that carry real cells to others, in latent space.

    Args:
        settings: the knobs.
        repair: a function of differences, shape (pair, latent), to lengths, shape (pair,).
    """
    form = repair or FORMS[settings.length]
    length = partial(form, eps=10.0**settings.eps) if form is shifted and not repair else form
    step, before, after = _prepared(settings, settings.dtype)
    with torch.no_grad():  # first: it also prepares the pairs, which are no part of the step
        wide_step, *wide = _prepared(settings, "float64")
        truth = float(carry(wide_step, *wide, norm, settings.pairs))
    report = trace(lambda: carry(step, before, after, length, settings.pairs), model=step)
    value = report.losses[0]
    # The tracer sees no fault in a constant that is too large: float64 has the same one.
    if report.verdict == Verdict.HEALTHY and not abs(value - truth) <= TRUE * abs(truth):
        report = _wrong(report, f"{value:.4g} where float64 has {truth:.4g}")
    return Reading(settings, report.verdict, report, value, truth)


def carry(
    step: nn.Linear, before: Tensor, after: Tensor, length: Form, pairs: str = "all"
) -> Tensor:
    """How far the moved cells are from their target."""
    return energy(step(before), after, length, pairs)


def energy(x: Tensor, y: Tensor, length: Form, pairs: str = "all") -> Tensor:
    """Energy distance of two clouds (cell, latent) by some way to take a length."""

    def mean(a: Tensor, b: Tensor, every: bool) -> Tensor:
        rows, columns = _pairs(len(a), len(b), every)
        return length(a[rows] - b[columns]).mean()

    every = pairs == "all"
    return 2 * mean(x, y, True) - mean(x, x, every) - mean(y, y, every)


@lru_cache(maxsize=8)
def _pairs(n: int, m: int, every: bool) -> tuple[Tensor, ...]:
    """Which rows of two clouds are compared: every pair, or not a row with itself."""
    return torch.ones(n, m).fill_diagonal_(every).nonzero(as_tuple=True)


def descents(steps: int = 40, lr: float = 0.05) -> dict[str, list[float]]:
    """Train without any safety; the loss of every step, for each form."""
    return {name: _descent(form, steps, lr) for name, form in FORMS.items()}


def in_use() -> dict[str, Reading]:
    """Three ways that people take an energy distance, each in one traced step."""
    ways = {
        "the guide's, from a matrix product": energy_distance_guide,
        "torch.cdist": lambda x, y: 2 * _mean(x, y) - _mean(x, x) - _mean(y, y),
        "labkit's energy_distance": partial(energy_distance, biased=True),
    }
    return {name: _reading(distance) for name, distance in ways.items()}


def _mean(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").mean()


def _reading(distance: Callable[[Tensor, Tensor], Tensor]) -> Reading:
    settings = CASES["broken"]
    step, before, after = _prepared(settings, "float32")
    report = trace(lambda: distance(step(before), after), model=step)
    truth = run(CASES["repaired"]).reference
    return Reading(settings, report.verdict, report, report.losses[0], truth)


def _descent(length: Form, steps: int, lr: float) -> list[float]:
    step, before, after = _prepared(CASES["broken"], "float32")
    optimizer = torch.optim.Adam(step.parameters(), lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = carry(step, before, after, length)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def clouds(count: int = 24) -> tuple[Tensor, Tensor]:
    """Latent means of some real cells of the two largest types, each (cell, latent)."""
    before, after = _clouds()
    return before[:count].clone(), after[:count].clone()


@lru_cache(maxsize=1)
def _clouds() -> tuple[Tensor, Tensor]:
    cells = load_pbmc().train
    z, sizes = embed(trained_vae(), cells), cells.cell_type.bincount()
    first, second = sizes.argsort(descending=True)[:2]
    return z[cells.cell_type == first], z[cells.cell_type == second]


def _prepared(settings: Settings, dtype: str) -> tuple[nn.Linear, Tensor, Tensor]:
    """An operator that starts as the identity, and two clouds, one cell of which is a near twin."""
    before, after = (z.to(getattr(torch, dtype)) for z in clouds())
    after[0] = before[0] + 10.0**settings.gap
    step = nn.Linear(before.shape[1], before.shape[1], dtype=before.dtype)
    with torch.no_grad():
        step.weight.copy_(torch.eye(before.shape[1]))
        step.bias.zero_()
    return step, before * 10.0**settings.scale, after * 10.0**settings.scale


def _wrong(report: Report, remark: str) -> Report:
    """The same report, its last root to blame for a value that is far from the truth."""
    names = ("sqrt", "linalg_vector_norm", "mean")
    op = next(op for name in names for op in report.ops[::-1] if op.name == name)
    return wrong(report, op, remark)
