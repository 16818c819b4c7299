"""Populations before and after a perturbation, unpaired, and how near a model carries them.

Energy distance here is in float64 and without bias; its root is never taken, because an unbiased
estimate is negative about half the time where the populations are equal.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor

from labkit.cells.data import Cells
from labkit.models.energy import Reference
from labkit.models.operator import OPERATOR_REPAIRED, OperatorGuards, OperatorModel


@dataclass(frozen=True, eq=False)
class Move:
    """Cells of one condition before a perturbation, and other cells after it."""

    before: Tensor  # (cell, latent)
    after: Tensor  # (other cell, latent)
    tissue: Tensor  # (tissue,) one-hot, or a row for each cell before
    perturbation: Tensor  # (perturbation,) one-hot, or a row for each cell before

    def apply(
        self, model: OperatorModel, steps: int = 1, guards: OperatorGuards = OPERATOR_REPAIRED
    ) -> Tensor:
        """Where the model puts the cells that were seen before."""
        conditions = (c.expand(len(self.before), -1) for c in (self.tissue, self.perturbation))
        return model(self.before, *conditions, steps, guards)

    @cached_property
    def reference(self) -> Reference:
        """The cells after it as a constant target; its own term is computed once."""
        return Reference.of(self.after)

    @property
    def shift(self) -> Tensor:
        """Difference of the means, the simplest model of the perturbation."""
        return self.after.mean(0) - self.before.mean(0)


def moves_by_tissue(
    z: Tensor, cells: Cells, before: Tensor, after: Tensor, perturbation: Tensor, least: int = 5
) -> list[tuple[Move, Move]]:
    """Moves of the training cells and of the held-out cells, a pair for each tissue.

    Cells are compared within their tissue. Compared across tissues, an operator that sends each
    tissue to another part of the target scores as well as the true one.

    Args:
        z: latent states of `cells`, without gradient.
        before, after: masks, shape (cell,).
        perturbation: which one, one-hot, shape (perturbation,).
        least: a tissue is left out if fewer training cells, or no held-out ones, are on a side.
    """
    if z.requires_grad or len(z) != len(cells):
        raise ValueError(f"z: expected one constant row for each of {len(cells)} cells")
    pairs = []
    for tissue in torch.eye(cells.tissue.shape[1]).to(z):
        here = (cells.tissue == tissue).all(1)
        train, test = (
            Move(z[before & part & here], z[after & part & here], tissue, perturbation.to(z))
            for part in (~cells.held_out, cells.held_out)
        )
        enough = min(len(train.before), len(train.after)) >= least
        if enough and min(len(test.before), len(test.after)) > 0:
            pairs.append((train, test))
    return pairs


@dataclass(frozen=True)
class Interval:
    """An estimate and its percentile bootstrap interval (95 % unless told otherwise)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, eq=False)
class Carried:
    """Held-out cells before, after the model, and where such cells are found.

    `distances` are energy distances to the target of *no change*, *mean shift* and *operator*;
    shift and operator know training cells only. `gain` is what the operator takes off the
    distance of the mean shift, from the same resamples: above 0 all along, it is better.
    """

    before: Tensor  # (cell, latent)
    after: Tensor  # (cell, latent)
    target: Tensor  # (other cell, latent)
    distances: dict[str, Interval]
    gain: Interval

    def __str__(self) -> str:
        rows = [f"{name:<11} {interval}" for name, interval in self.distances.items()]
        return "\n".join([*rows, f"{'gain':<11} {self.gain}"])


@torch.no_grad()
def carry(
    model: OperatorModel,
    pairs: list[tuple[Move, Move]],
    steps: int = 1,
    guards: OperatorGuards = OPERATOR_REPAIRED,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Carried:
    """Move held-out cells and measure how far from the target they end.

    Args:
        pairs: training and held-out move of each tissue, all of one perturbation.
        resamples, level, seed: of the bootstrap over held-out cells. Model and shift are kept, so
            the interval holds the scatter of the cells that judge, not of those that were learned.

    Source: Efron & Tibshirani 1993, chapter 13 (percentile interval).
    """
    if not pairs:
        raise ValueError("pairs: expected one or more; no tissue had enough cells on both sides")
    target = torch.cat([test.after for _, test in pairs])
    states = {
        "no change": torch.cat([test.before for _, test in pairs]),
        "mean shift": torch.cat([test.before + train.shift for train, test in pairs]),
        "operator": torch.cat([test.apply(model, steps, guards) for _, test in pairs]),
    }
    generator = Generator().manual_seed(seed)
    w = resampled(len(states["operator"]), resamples, generator)
    v = resampled(len(target), resamples, generator)
    drawn = {name: weighted_energy(x, target, w, v) for name, x in states.items()}
    distances = {name: interval(d, level) for name, d in drawn.items()}
    gain = interval(drawn["mean shift"] - drawn["operator"], level)
    return Carried(states["no change"], states["operator"], target, distances, gain)


def resampled(n: int, resamples: int, generator: Generator) -> Tensor:
    """How often each of n cells is drawn, shape (1 + resample, n); first, each of them once."""
    draws = torch.randint(n, (resamples, n), generator=generator)
    counts = torch.zeros(resamples, n, dtype=torch.float64)
    counts.scatter_add_(1, draws, torch.ones_like(counts))
    return torch.cat([torch.ones(1, n, dtype=torch.float64), counts])


def weighted_energy(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
    """Unbiased energy distance of x and y under each row of cell weights w and v.

    A cell that was drawn twice is never paired with itself: those zeros would bias the bootstrap.

    Source: Székely & Rizzo 2013, Energy statistics.
    """

    def mean(a: Tensor, b: Tensor, p: Tensor, q: Tensor, pairs: Tensor) -> Tensor:
        d = torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")
        return ((p @ d) * q).sum(1) / pairs

    def within(a: Tensor, p: Tensor) -> Tensor:
        return mean(a, a, p, p, p.sum(1).square() - p.square().sum(1))

    return 2 * mean(x, y, w, v, w.sum(1) * v.sum(1)) - within(x, w) - within(y, v)


def interval(drawn: Tensor, level: float) -> Interval:
    """The first value, and the middle `level` of the others."""
    tail = (1 - level) / 2
    low, high = drawn[1:].nanquantile(torch.tensor([tail, 1 - tail], dtype=drawn.dtype)).tolist()
    return Interval(float(drawn[0]), low, high)
