"""Distances that cancel: two neighbours far from the origin, compared by their squares.

A matrix product gives all distances at once from |x|² + |y|² - 2xy. Where the cells are far from
the origin and near each other, two large numbers are subtracted and their digits are gone. The
guide's clamp at 0 hides the squares that come out negative.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, log10

import torch
from torch import Tensor, nn

from labkit.bench import Claim, Reading, choice, dial
from labkit.cells.data import load_pbmc
from labkit.failures._by_hand import distances
from labkit.failures._whole import wrong
from labkit.models.energy import energy_distance, energy_distance_guide
from labkit.models.vae import embed
from labkit.probes.report import Report
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict
from labkit.training.train import trained_vae

Form = Callable[[Tensor, Tensor], Tensor]


def expansion(x: Tensor, y: Tensor) -> Tensor:
    """The guide's: |x|² + |y|² - 2xy, not below 0, and its root."""
    squares = x.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * x @ y.t()
    return squares.clamp(min=0.0).sqrt()


def library(x: Tensor, y: Tensor) -> Tensor:
    """torch.cdist as it comes: from 26 rows on it uses the expansion."""
    return torch.cdist(x, y)


def centred(x: Tensor, y: Tensor) -> Tensor:
    """Subtract the mean first: as good as the cells are near their mean."""
    return expansion(x - y.mean(0), y - y.mean(0))


def wide(x: Tensor, y: Tensor) -> Tensor:
    """The expansion in float64: 29 more bits to lose."""
    return expansion(x.double(), y.double()).to(x.dtype)


def subtracted(x: Tensor, y: Tensor) -> Tensor:
    """Subtract first, square afterwards: nothing cancels but what is equal."""
    return torch.linalg.vector_norm(x[:, None] - y, dim=-1)


TITLE = "Distances that cancel"
NICKNAME = "the same digits twice"
SYMPTOM = "Neighbours are at distance 0 or far too far, and it changes with the origin."
CLAIM = Claim(
    quote="clamp x到>=0",
    translation="clamp the argument of sqrt to >= 0",
    verdict="incomplete guard",
    truth="A squared distance is negative only where its digits have cancelled. The clamp hides "
    "that: from an offset of 100 on, the distances of neighbours are wrong or 0.",
)
SOURCES = (
    "Goldberg (1991), What Every Computer Scientist Should Know About Floating-Point "
    "Arithmetic: catastrophic cancellation",
    "Higham (2002), Accuracy and Stability of Numerical Algorithms, section 2.5: "
    "Sterbenz's lemma, a subtraction that is exact",
)
CARD = {
    "cause": "|x|² + |y|² - 2xy subtracts numbers of the size of the offset squared.",
    "repair": "Subtract before you square; or centre each group of neighbours first.",
    "proof": "The distances do not change when all cells move by the same vector.",
}
CANCELLED = (
    "finite, but far from float64. Two numbers of the size of |x|² are subtracted, and a distance "
    "is what is left. Subtract x - y before anything is squared. More bits, or another origin, "
    "move the edge: try two groups of cells, or a larger offset."
)
ANOTHER = "where nothing cancels it is another number too"
OTHER = (
    "finite, and another distance: it is far from float64 at an offset of 0 as well. Meant is the "
    "Euclidean one, the root of the sum of the squared differences."
)
MET = (
    "two cells may lie in the same place. There the root has no slope, and an eps inside it is a "
    "distance of its own: vector_norm and cdist know that, a root of your own must be kept from 0."
)
HINTS = {
    **dict.fromkeys((Verdict.INF, Verdict.NAN), CANCELLED),
    Verdict.WRONG: lambda reading: OTHER if reading.note == ANOTHER else CANCELLED,
}
BY_HAND = ((distances, MET),)
FORMS: dict[str, Form] = {
    "expansion": expansion,
    "cdist": library,
    "centred": centred,
    "float64": wide,
    "subtract": subtracted,
}
FORM_KNOB = "distance"
MAP = {"offset": range(8), "distance": tuple(FORMS)}
OFF = 1e-2  # of the loss, and of the gradient's length, relative to float64
COUNT = 40  # cells of each batch


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    offset: float = dial(0.0, 0, 7, 0.5, "log10", "added to each of the 8 coordinates of a cell")
    moved: str = choice("all", ("all", "half"), "which cells are moved; the others stay")
    distance: str = choice("subtract", FORMS, "from cells of two batches to all distances")
    dtype: str = choice("float32", ("float32", "float64"), "of the cells")


CASES = {
    "healthy": Settings(),
    "broken": Settings(offset=2.0, distance="expansion"),
    "repaired": Settings(offset=2.0),
    "lost": Settings(offset=3.0, distance="expansion"),
    "two groups": Settings(offset=4.0, moved="half", distance="centred"),
    "stored": Settings(offset=6.5),
}
CHECKS = (
    (Settings(offset=4.0, moved="half"), Verdict.HEALTHY, CANCELLED),
    (Settings(offset=7.0, dtype="float64"), Verdict.HEALTHY, CANCELLED),
)


class Alignment(nn.Module):
    """Moves the cells of one batch onto another by a shift, of 0 so far."""

    def __init__(self, like: Tensor):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros_like(like[0]))

    def forward(self, x: Tensor, y: Tensor, distance: Form) -> Tensor:
        """Mean distance to the nearest cell of the other batch, in both directions."""
        apart = distance(x + self.shift, y)
        return apart.amin(1).mean() + apart.amin(0).mean()


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """One training step that aligns two batches of real cells of one type, in latent space.

    Args:
        settings: the knobs.
        repair: a function of two batches, (cell, latent) and (other cell, latent), to their
            distances, (cell, other cell).
    """
    form = repair or FORMS[settings.distance]
    x, y = batches(settings)
    model = Alignment(x)
    report = trace(lambda: model(x, y, form), model=model)
    truth, slope = _truth(settings.offset, settings.moved)
    value = report.losses[0]
    # The tracer sees finite numbers. That the origin has changed them, only the truth can tell.
    if report.verdict == Verdict.HEALTHY and not abs(value - truth) <= OFF * truth:
        report = _wrong(report, f"{value:.3f} where float64 has {truth:.3f}")
    if report.verdict == Verdict.HEALTHY and _error(_shift_slope(x, y, form), slope) > OFF:
        report = _wrong(report, "the loss is right, the gradient is far from float64")
    note = ANOTHER if report.verdict == Verdict.WRONG and not _right_at_home(form) else ""
    return Reading(settings, report.verdict, report, value, truth, note)


def batches(settings: Settings) -> tuple[Tensor, Tensor]:
    """Latent means of two batches of one cell type, each (cell, latent), moved and then stored."""
    x, y = (z.double().clone() for z in _batches())
    moved = slice(None) if settings.moved == "all" else slice(0, COUNT // 2)
    for z in (x, y):
        z[moved] += 10.0**settings.offset
    return x.to(getattr(torch, settings.dtype)), y.to(getattr(torch, settings.dtype))


def errors(form: str, moved: str = "all", offsets=range(8)) -> list[float]:
    """log10 of the error of the loss, relative, at each offset (given as its own log10)."""
    found = []
    for offset in offsets:
        x, y = batches(Settings(offset=float(offset), moved=moved))
        with torch.no_grad():
            value = float(Alignment(x)(x, y, FORMS[form]))
        truth = _truth(float(offset), moved)[0]
        found.append(log10(max(abs(value - truth) / truth, 1e-9)))
    return found


def neighbours(form: str, offset: float) -> tuple[float, float]:
    """Share of cells whose nearest other cell is the right one, and of distances that are 0."""
    x, y = batches(Settings(offset=offset))
    apart, true = FORMS[form](x, y), subtracted(*(z.double() for z in _batches()))
    same = (apart.argmin(1) == true.argmin(1)).float().mean()
    return same.item(), (apart == 0).float().mean().item()


def energies(offset: float) -> dict[str, float]:
    """Energy distance of the two batches at an offset (its log10), three ways."""
    x, y = batches(Settings(offset=offset))
    return {
        "the guide's": energy_distance_guide(x, y).item(),
        "labkit's": energy_distance(x, y, biased=True).item(),
        "float64": energy_distance(x.double(), y.double(), biased=True).item(),
    }


def _right_at_home(form: Form) -> bool:
    """Is the loss right near the origin, where nothing cancels?"""
    x, y = batches(Settings())
    truth = _truth(0.0, "all")[0]
    with torch.no_grad():
        return abs(float(Alignment(x)(x, y, form)) - truth) <= OFF * truth


@lru_cache(maxsize=64)
def _truth(offset: float, moved: str) -> tuple[float, Tensor]:
    """Loss and gradient of the shift in float64, as if the cells had been stored in full."""
    x, y = batches(Settings(offset=offset, moved=moved, dtype="float64"))
    with torch.no_grad():
        value = float(Alignment(x)(x, y, subtracted))
    return value, _shift_slope(x, y, subtracted)


def _shift_slope(x: Tensor, y: Tensor, form: Form) -> Tensor:
    model = Alignment(x)
    (slope,) = torch.autograd.grad(model(x, y, form), [model.shift], allow_unused=True)
    return torch.zeros_like(x[0]) if slope is None else slope


def _error(mine: Tensor, truth: Tensor) -> float:
    off = float((mine.double() - truth).norm() / truth.norm())
    return off if isfinite(off) else 0.0  # what is not finite has a verdict already


def _wrong(report: Report, remark: str) -> Report:
    """The same report, the last op of the form to blame; if it only subtracts, what is stored."""
    ops = [op for op in report.ops if op.phase == "forward" and op.file]
    form = [op for op in ops if op.function != "forward"]
    op = next((op for op in form[::-1] if op.name in ("sub", "_cdist_forward")), (form or ops)[-1])
    return wrong(report, op, remark)


@lru_cache(maxsize=1)
def _batches() -> tuple[Tensor, Tensor]:
    cells = load_pbmc().train
    z = embed(trained_vae(), cells)
    largest = cells.cell_type.bincount().argmax()
    z = z[cells.cell_type == largest]
    return z[:COUNT], z[COUNT : 2 * COUNT]
