"""A block of points while the distances from it to others are added up, tile by tile."""

from itertools import repeat
from math import frexp, inf, log2
from typing import NamedTuple

import torch
from torch import Tensor


class Side(NamedTuple):
    """Neighbours (last axis) seen from a centre, and what their tiles have added to them so far.

    `rows` are the coordinates p, in a unit, then 1, then |p|²; `points` are as they came, so that
    no digit is lost. `weighed` are the rows times the weights, `across` its coordinates, a row for
    each point. `found` holds w · (rows of the other points), with w = 1/d.
    """

    points: Tensor
    weight: Tensor
    gradient: Tensor | None
    rows: Tensor
    weighed: Tensor
    across: Tensor
    found: Tensor

    @classmethod
    def of(cls, points: Tensor, weight: Tensor, gradient, centre: Tensor, unit: float) -> "Side":
        rows = points.new_empty(points.shape[0] + 2, points.shape[1])
        p = torch.sub(points / unit, centre / unit, out=rows[:-2])
        rows[-2] = 1.0
        torch.sum(p * p, 0, out=rows[-1])
        weighed = rows if bool((weight == 1).all()) else rows * weight
        across = weighed[:-2].t().contiguous()
        return cls(points, weight, gradient, rows, weighed, across, torch.zeros_like(rows))

    def left(self) -> Tensor:
        """(point, row): its product with the rows of other points is their squared distance."""
        return torch.cat([-2 * self.rows[:-2], self.rows[-1:], self.rows[-2:-1]]).t().contiguous()

    def close(self) -> float:
        """Adds what the tiles found to the gradient; returns this block's part of the sum."""
        p, square, pull, sums = self.rows[:-2], self.rows[-1], self.found[:-2], self.found[-2]
        total = sums * square
        if self.gradient is not None:
            self.gradient.addcmul_(p, sums).sub_(pull)
            total -= (p * pull).sum(0)
        return float((self.weight * total).double().sum())


def cut(points: Tensor, weight: Tensor, gradient, centre: Tensor, unit: float, block: int):
    """Blocks of neighbours, each small enough to stay in the cache while it is made."""
    if not points.shape[1]:
        return []
    parts = (repeat(None) if t is None else t.split(block, -1) for t in (points, weight, gradient))
    return [Side.of(*part, centre, unit) for part in zip(*parts, strict=False)]


def middle(p: Tensor) -> Tensor:
    """A point among the columns of `p` that a few far ones do not move."""
    return p[:, :: p.shape[1] // 32 + 1].median(1, keepdim=True).values


def unit_of(*samples: Tensor) -> float:
    """The power of two in which the largest coordinate is near 1: squares cannot overflow."""
    ends = (torch.aminmax(p) for p in samples if p.numel())
    top = max(abs(float(end)) for pair in ends for end in pair)
    limit = round(-log2(torch.finfo(samples[0].dtype).tiny))
    return 2.0 ** max(-limit, min(limit, frexp(top)[1])) if 0 < top < inf else 1.0
