"""One tile: the distances from a strip's points to a block of others, and what they add to both."""

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from labkit.kernels.cloud import BLOCK
from labkit.kernels.side import Side, middle, unit_of

_WHOLE = {torch.float32: torch.int32, torch.float64: torch.int64}


@dataclass(frozen=True)
class Tiling:
    """How the pairs are cut into tiles, and which of them a matrix product may not decide.

    Args:
        block: points on a side of a tile.
        near: a pair is near when d² < near · |a|², with a seen from the middle. Other pairs have a
            relative error of about 6e-8 / near at most. Larger: slower. Smaller: less exact.
        near_double: the same in float64.
        dense: a float32 tile with a larger share of near pairs is done anew in float64.
        chunk: near pairs subtracted at a time. Larger: more memory.
        floor: where the largest coordinate is 1, a pair nearer than sqrt(near) · floor times the
            root of the dtype's smallest number counts as near: its square has lost digits.
    """

    block: int = BLOCK
    near: float = 6e-3
    near_double: float = 1e-8
    dense: float = 1 / 64
    chunk: int = 8192
    floor: float = 1e3


USUAL = Tiling()


class Plan:
    """What all tiles share: memory, sizes, unit, whether weights are all 1 and gradients unwanted.

    Args:
        plain: whether all weights are 1.
        value_only: whether only the sum is wanted.
        unit: of the coordinates.
        tiling: sizes and thresholds.
    """

    def __init__(self, plain: bool, value_only: bool, unit: float, tiling: Tiling):
        self.plain, self.value_only, self.unit, self.tiling = plain, value_only, unit, tiling
        self._memory, self._tiles = torch.empty(0), {}

    def tile(self, rows: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Memory for a tile, and its bits: floats that are not negative sort like their bits."""
        size = rows, like.shape[1]
        if size not in self._tiles:
            if self._memory.numel() < size[0] * size[1]:
                self._memory = like.new_empty(size[0] * size[1])
            w = self._memory[: size[0] * size[1]].view(size)
            self._tiles[size] = w, w.view(_WHOLE[w.dtype])
        return self._tiles[size]

    def row_sums(self, w: Tensor, b: Side, out: Tensor) -> Tensor:
        if self.plain:  # sum rounds less where terms are alike
            return torch.sum(w, 1, out=out)
        return torch.mv(w, b.weight, out=out)


class Strip:
    """A side that looks at others in turn.

    Args:
        a: the side.
        others: all that it will look at.
        plan: what all tiles share.
    """

    def __init__(self, a: Side, others: list[Side], plan: Plan):
        near = plan.tiling.near if a.rows.dtype == torch.float32 else plan.tiling.near_double
        self.a, self.plan, self.left, self.shares = a, plan, a.left(), []
        self.limit = near * (a.rows[-1] + torch.finfo(a.rows.dtype).tiny * plan.tiling.floor**2)
        self.largest = self.limit.amax().view(_WHOLE[self.limit.dtype]).item()
        # w · (the coordinates of others), of those that have a gradient and of those that have none
        self.pull = torch.zeros_like(a.across)
        lonely = any(b.gradient is None for b in others)
        self.alone = torch.zeros_like(a.across) if lonely else None
        self.sums = self.limit.new_zeros(len(others), self.limit.shape[0])  # of w, for each other
        self.rows = self.sums.unbind()

    def tile(self, b: Side, share: float) -> float:
        """Adds share · w · (rows of the other point) to both sides.

        Returns the distances that no side holds: those subtracted; of the sum alone, all.
        """
        a, plan, diagonal, total = self.a, self.plan, b is self.a, 0.0
        share = share / 2 if diagonal else share  # the diagonal tile holds each of its pairs twice
        sums = self.rows[len(self.shares)]
        self.shares.append(share)
        w, bits = plan.tile(self.limit.shape[0], b.rows)
        torch.mm(self.left, b.rows, out=w)
        if diagonal:
            w.fill_diagonal_(inf)
        near = _near(w, self.limit) if bits.amin().item() < self.largest else None
        if near is not None:
            if near[0].shape[0] > plan.tiling.dense * w.numel() and w.dtype == torch.float32:
                return _in_double(a, b, share, plan)
            total += _subtracted(a, b, *near, share, plan.tiling.chunk)
            w[near] = 0.0 if plan.value_only else inf
        w.sqrt_()
        if plan.value_only:
            d = w.fill_diagonal_(0.0) if diagonal else w
            return total + float(a.weight @ plan.row_sums(d, b, sums)) * share * plan.unit
        w.reciprocal_()  # 0 for a point and itself, and for pairs that were subtracted
        plan.row_sums(w, b, sums)
        if b.gradient is not None:
            self.pull.addmm_(w, b.across, alpha=share)
            b.found.addmm_(a.weighed, w, alpha=share)
        else:
            self.alone.addmm_(w, b.across, alpha=share)
            b.found[-2].add_(w.sum(0) if plan.plain else a.weight @ w, alpha=share)
        return total

    def close(self) -> float:
        """Gives what was gathered to its side; returns what it knows of sides without gradient."""
        if self.plan.value_only:
            return 0.0
        self.a.found[-2].add_(self.sums.new_tensor(self.shares) @ self.sums)
        self.a.found[:-2].add_(self.pull.t())
        if self.alone is None:
            return 0.0
        self.a.found[:-2].add_(self.alone.t())
        return -self.plan.unit * float((self.a.across * self.alone).double().sum())


def _near(w: Tensor, limit: Tensor) -> tuple[Tensor, Tensor] | None:
    """Rows and columns of the near pairs, if any."""
    rows = (w.amin(1) < limit).nonzero()[:, 0]
    if not rows.shape[0]:
        return None
    i, j = (w[rows] < limit[rows, None]).nonzero(as_tuple=True)
    return rows[i], j


def _in_double(a: Side, b: Side, share: float, plan: Plan) -> float:
    """The pairs of one tile in float64, seen from the tile's own middle."""
    pair = (a,) if b is a else (a, b)
    wide = [[None if t is None else t.double() for t in side[:3]] for side in pair]
    centre, unit = middle(wide[0][0]), unit_of(*(points for points, *_ in wide))
    sides = [Side.of(*side, centre, unit) for side in wide]
    strip = Strip(sides[0], sides[-1:], Plan(plan.plain, plan.value_only, unit, plan.tiling))
    total = strip.tile(sides[-1], 2 * share if b is a else share) + strip.close()
    if not plan.value_only:
        total += unit * sum(side.close() for side in sides)
    for side, (*_, gradient) in zip(pair, wide, strict=True):
        if gradient is not None:
            side.gradient.copy_(gradient)
    return total


def _subtracted(a: Side, b: Side, rows: Tensor, columns: Tensor, share: float, chunk) -> float:
    """Pairs of columns of a and b by subtraction; for a pair that coincides all is 0."""
    total = 0.0
    for i, j in zip(rows.split(chunk), columns.split(chunk), strict=True):
        unit = a.points[:, i] - b.points[:, j]
        size = unit.abs().amax(0)
        unit /= size.where(size > 0, 1)
        norm = torch.linalg.vector_norm(unit, dim=0).clamp_(min=1)
        unit /= norm
        if a.gradient is not None:
            a.gradient.index_add_(1, i, unit * b.weight[j], alpha=share)
        if b.gradient is not None:
            b.gradient.index_add_(1, j, unit * a.weight[i], alpha=-share)
        total += share * float((a.weight[i] * b.weight[j] * size * norm).double().sum())
    return total
