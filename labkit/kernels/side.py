"""One of two clouds while the distances between them are added up, tile by tile."""

from itertools import repeat
from typing import NamedTuple

import torch
from torch import Tensor


class Side(NamedTuple):
    """Points (last axis) seen from a centre, and what their tiles have added to them so far.

    `rows` are the coordinates p, in a unit, then 1, then |p|²; `points` are as they came, so that
    no digit is lost. `found` holds w · (rows of the other points), with w = 1/d. Blocks hold
    `across` too: the weighed coordinates, a row for each point.
    """

    points: Tensor
    weight: Tensor
    gradient: Tensor | None
    rows: Tensor
    weighed: Tensor
    found: Tensor
    across: Tensor | None = None

    @classmethod
    def of(cls, points: Tensor, weight: Tensor, gradient, centre: Tensor, unit: float) -> "Side":
        rows = points.new_empty(len(points) + 2, points.shape[1])
        p = torch.sub(points / unit, centre / unit, out=rows[:-2])
        rows[-2] = 1.0
        torch.sum(p * p, 0, out=rows[-1])
        weighed = rows if bool((weight == 1).all()) else rows * weight
        return cls(points, weight, gradient, rows, weighed, torch.zeros_like(rows))

    def cut(self, block: int) -> list["Side"]:
        """Blocks of neighbours, packed as products read them fastest."""
        parts = (repeat(None) if t is None else t.split(block, -1) for t in self)
        plain = self.weighed is self.rows
        return [Side(*part)._packed(plain) for part in zip(*parts, strict=False)]

    def _packed(self, plain: bool) -> "Side":
        rows = self.rows.contiguous()
        weighed = rows if plain else self.weighed.contiguous()
        return self._replace(rows=rows, weighed=weighed, across=weighed[:-2].t().contiguous())

    def left(self) -> Tensor:
        """(point, row): its product with the rows of other points is their squared distance."""
        return torch.cat([-2 * self.rows[:-2], self.rows[-1:], self.rows[-2:-1]]).t().contiguous()

    def close(self, share: float) -> float:
        """Adds what the tiles found to the gradient; returns this side's part of the sum."""
        p, square, pull, sums = self.rows[:-2], self.rows[-1], self.found[:-2], self.found[-2]
        total = sums * square
        if self.gradient is not None:
            self.gradient.addcmul_(p, sums).sub_(pull)
            total -= share * (p * pull).sum(0)
        return float((self.weight * total).double().sum())


def close(unit: float, *sides: Side) -> float:
    """Adds what the tiles found to the gradients; returns the sum of the distances."""
    wanted = sum(side.gradient is not None for side in sides)
    return unit * sum(side.close(len(sides) / wanted) for side in sides) if wanted else 0.0
