"""The sum of all Euclidean distances between two clouds of points, and its gradient, in tiles.

One matrix product gives the squared distances of a tile, two more turn their inverse roots w = 1/d
into gradients: dS/da = a · sum(w) - w @ b. With them the sum needs no pass of its own: |x - y| is
homogeneous, so S = sum of a · dS/da + sum of b · dS/db (Euler). A matrix product loses the digits
of pairs that are closer together than they are to the origin. So equal rows are merged, neighbours
share a tile, a tile is seen from its middle, and pairs still near are subtracted one by one.
"""

from dataclasses import dataclass
from math import frexp, inf, log2
from typing import NamedTuple

import torch
from torch import Tensor

from labkit.kernels.cloud import BLOCK, Cloud
from labkit.kernels.side import Side, close, cut

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


def distance_sum(
    a: Cloud, b: Cloud, to_a: bool = True, to_b: bool = True, tiling: Tiling = Tiling()
) -> tuple[float, Tensor | None, Tensor | None]:
    """Sum of |x - y| over every row x of `a` and every row y of `b`, with its gradient.

    Args:
        a: a cloud.
        b: a cloud of the same dtype and number of axes. Where it is `a` itself, half the work.
        to_a: whether the gradient for the rows of `a` is wanted; the sum alone is faster.
        to_b: the same for `b`.
        tiling: sizes and thresholds.

    Returns:
        The sum, the gradient for the rows of `a` (row, axis) and that for the rows of `b`.
        Coincident rows add nothing to any of them. NaN or Inf in either cloud gives NaN.
    """
    if 0 in (len(a.weight), len(b.weight)):
        empty = (c.to_rows(torch.zeros_like(c.points)) for c in (a, b))
        return 0.0, *(g if wanted else None for g, wanted in zip(empty, (to_a, to_b), strict=True))
    to_p = torch.zeros_like(a.points) if to_a else None
    to_q = to_p if b is a else torch.zeros_like(b.points) if to_b else None
    # Nothing in here is differentiated: calls are quicker where torch knows it.
    with torch.autocast(a.points.device.type, enabled=False), torch.inference_mode():
        total = _add_up(a.points, a.weight, b.points, b.weight, to_p, to_q, tiling)
    if b is a:  # each pair was looked at once
        total, to_p = 2 * total, to_p if to_p is None else to_p.mul_(2)
    return total, *(g if g is None else c.to_rows(g) for g, c in ((to_p, a), (to_q, b)))


def _unit(p: Tensor, q: Tensor) -> float:
    """The power of two in which the largest coordinate is near 1: squares cannot overflow."""
    top = max(abs(float(end)) for side in (p, q) for end in torch.aminmax(side))
    limit = round(-log2(torch.finfo(p.dtype).tiny))
    return 2.0 ** max(-limit, min(limit, frexp(top)[1])) if 0 < top < inf else 1.0


class _Plan(NamedTuple):
    """What all tiles share: one cloud or two, weights all 1, unit, memory, sizes."""

    same: bool
    plain: bool
    unit: float
    memory: Tensor
    tiling: Tiling

    def tile(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Memory for a tile, and its bits: floats that are not negative sort like their bits."""
        w = self.memory[: rows * columns].view(rows, columns)
        return w, w.view(_WHOLE[w.dtype])

    def row_sums(self, w: Tensor, b: Side, out: Tensor) -> Tensor:
        if self.plain:  # sum rounds less where terms are alike
            return torch.sum(w, 1, out=out)
        return torch.mv(w, b.weight, out=out)


def _middle(p: Tensor) -> Tensor:
    """A point among the columns of `p` that a few far ones do not move."""
    return p[:, :: p.shape[1] // 32 + 1].median(1, keepdim=True).values


def _spread(p: Tensor, centre: Tensor) -> Tensor:
    """Median squared distance from a centre of some columns of `p`."""
    return (p[:, :: p.shape[1] // 64 + 1] - centre).square().sum(0).median()


def _add_up(p, wp, q, wq, to_p, to_q, tiling: Tiling) -> float:
    """The sum over all pairs of columns of p and q; where q is p, of a column with later ones."""
    centre, unit, size = _middle(p), _unit(p, q), tiling.block
    a = cut(p, wp, to_p, centre, unit, size)
    b = a if q is p else cut(q, wq, to_q, centre, unit, size)
    memory = p.new_empty(min(p.shape[1], size) * min(q.shape[1], size))
    plan = _Plan(q is p, bool((wp == 1).all() and (wq == 1).all()), unit, memory, tiling)
    total = 0.0
    for i, block in enumerate(a):
        first, own = i if plan.same else 0, _middle(block.rows[:-2])
        if not own.square().sum() > 4 * _spread(block.rows[:-2], own):
            total += _strip(block, b[first:], plan)
            continue
        # a cluster far from the rest: seen from the centre, all of its own pairs would be near
        rest = (None if t is None else t[..., first * size :] for t in (q, wq, to_q))
        own = own * unit + centre
        here, others = (cut(*side, own, unit, size) for side in (block[:3], rest))
        total += _strip(here[0], others, plan) + close(unit, here, others)
    return total + close(unit, *((a,) if plan.same else (a, b)))


def _strip(a: Side, others: list[Side], plan: _Plan) -> float:
    """Adds w · (rows of the other point) of one block and the others to both sides.

    Returns the distances that no side holds: those subtracted; without gradients, all.
    """
    left, limit, total = a.left(), _limit(a.rows[-1], plan.tiling), 0.0
    tiles = {n: plan.tile(len(limit), n) for n in {b.rows.shape[1] for b in others}}
    largest = limit.amax().view(_WHOLE[limit.dtype]).item()
    value_only = a.gradient is None and others[0].gradient is None
    pull, sums = torch.zeros_like(a.across), limit.new_zeros(len(others), len(limit))
    for number, (b, row_sums) in enumerate(zip(others, sums.unbind(), strict=True)):
        diagonal = plan.same and number == 0
        half = 0.5 if diagonal else 1.0  # the diagonal tile holds each of its pairs twice
        w, bits = tiles[b.rows.shape[1]]
        torch.mm(left, b.rows, out=w)
        if diagonal:
            w.fill_diagonal_(inf)
        near = _near(w, limit) if bits.amin().item() < largest else None
        if near is not None:
            if near[0].shape[0] > plan.tiling.dense * w.numel() and w.dtype == torch.float32:
                total += _in_double(a, b, diagonal, plan.tiling)
                continue
            total += _subtracted(a, b, *near, half, plan.tiling.chunk)
            w[near] = 0.0 if value_only else inf
        w.sqrt_()
        if value_only:
            d = w.fill_diagonal_(0.0) if diagonal else w
            total += float(a.weight @ plan.row_sums(d, b, row_sums)) * half * plan.unit
            continue
        w.reciprocal_()  # 0 for a point and itself, and for pairs that were subtracted
        plan.row_sums(w, b, row_sums)
        if a.gradient is not None:
            pull.addmm_(w, b.across, alpha=half)
        if b.gradient is not None:
            b.found.addmm_(a.weighed, w, alpha=half)
        else:
            b.found[-2].add_(w.sum(0) if plan.plain else a.weight @ w)
    if plan.same:
        sums[0] *= 0.5
    a.found[-2].add_(sums.sum(0))
    a.found[:-2].add_(pull.t())
    return total


def _limit(square: Tensor, tiling: Tiling) -> Tensor:
    """The squared distance below which a pair of each point is near."""
    share = tiling.near if square.dtype == torch.float32 else tiling.near_double
    return share * (square + torch.finfo(square.dtype).tiny * tiling.floor**2)


def _near(w: Tensor, limit: Tensor) -> tuple[Tensor, Tensor] | None:
    """Rows and columns of the near pairs, if any."""
    rows = (w.amin(1) < limit).nonzero()[:, 0]
    if not rows.shape[0]:
        return None
    i, j = (w[rows] < limit[rows, None]).nonzero(as_tuple=True)
    return rows[i], j


def _in_double(a: Side, b: Side, same: bool, tiling: Tiling) -> float:
    """The pairs of one tile in float64, seen from the tile's own middle."""
    wide = [
        (s.points.double(), s.weight.double(), None if s.gradient is None else s.gradient.double())
        for s in ((a,) if same else (a, b))
    ]
    (p, wp, to_p), (q, wq, to_q) = wide[0], wide[-1]
    total = _add_up(p, wp, q, wq, to_p, to_q, tiling)
    for side, (_, _, gradient) in zip((a, b), wide, strict=False):
        if gradient is not None:
            side.gradient.copy_(gradient)
    return total


def _subtracted(a: Side, b: Side, rows: Tensor, columns: Tensor, half: float, chunk) -> float:
    """Pairs of columns of a and b by subtraction; for a pair that coincides all is 0."""
    total = 0.0
    for i, j in zip(rows.split(chunk), columns.split(chunk), strict=True):
        unit = a.points[:, i] - b.points[:, j]
        size = unit.abs().amax(0)
        unit /= size.where(size > 0, 1)
        norm = torch.linalg.vector_norm(unit, dim=0).clamp_(min=1)
        unit /= norm
        if a.gradient is not None:
            a.gradient.index_add_(1, i, unit * b.weight[j], alpha=half)
        if b.gradient is not None:
            b.gradient.index_add_(1, j, unit * a.weight[i], alpha=-half)
        total += half * float((a.weight[i] * b.weight[j] * size * norm).double().sum())
    return total
