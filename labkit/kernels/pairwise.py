"""Sums of all Euclidean distances between clouds of points, and their gradients, in tiles.

One matrix product gives the squared distances of a tile, two more turn their inverse roots w = 1/d
into gradients: dS/da = a · sum(w) - w @ b. With them the sum needs no pass of its own: |x - y| is
homogeneous, so S = sum of a · dS/da + sum of b · dS/db (Euler). A matrix product loses the digits
of pairs that are closer together than they are to the origin. So equal rows are merged, neighbours
share a tile, a tile is seen from its middle, and pairs still near are subtracted one by one.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from labkit.kernels.cloud import Cloud
from labkit.kernels.side import Side, cut, middle, unit_of
from labkit.kernels.tile import USUAL, Plan, Strip, Tiling


def distance_sum(
    a: Cloud, b: Cloud, to_a: bool = True, to_b: bool = True, tiling: Tiling = USUAL
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
    if b is a:
        total, found, _ = weighed_sum(a, None, (0.0, 1.0, 0.0), to_a or to_b, tiling=tiling)
        return total, found if to_a else None, found if to_b else None
    return weighed_sum(a, b, (1.0, 0.0, 0.0), to_a, to_b, tiling)


def weighed_sum(
    a: Cloud,
    b: Cloud | None,
    shares: tuple[float, float, float],
    to_a: bool = True,
    to_b: bool = False,
    tiling: Tiling = USUAL,
) -> tuple[float, Tensor | None, Tensor | None]:
    """Three sums of distances at once: what they have in common is made once.

    Args:
        a: a cloud.
        b: another one; None for no points.
        shares: what the sums over a and b, over a and itself, over b and itself count for.
        to_a: as in `distance_sum`, with `to_b` and `tiling`.

    Returns:
        As `distance_sum`, of the three together.
    """
    across, in_a, in_b = shares
    if to_b and not to_a:  # the first is the one whose gradient is wanted
        total, found, _ = weighed_sum(b, a, (across, in_b, in_a), True, False, tiling)
        return total, None, found
    alone = 0.0
    if in_b and to_a and not to_b:  # this sum takes no gradient: it is quicker by itself
        alone, in_b = weighed_sum(b, None, (0.0, in_b, 0.0), False, tiling=tiling)[0], 0.0
    one = _Sample.of(a, to_a)
    two = one.without_points() if b is None else _Sample.of(b, to_b)
    # Nothing in here is differentiated: calls are quicker where torch knows it.
    with torch.autocast(a.points.device.type, enabled=False), torch.inference_mode():
        total = _add_up(one, two, across, 2 * in_a, 2 * in_b, tiling)  # sees each own pair once
    ends = ((one.gradient, a), (two.gradient, b))
    return total + alone, *(None if g is None else c.to_rows(g) for g, c in ends)


class _Sample(NamedTuple):
    """Points (axis, point), how many rows each stands for, and where its gradient goes, if any."""

    points: Tensor
    weight: Tensor
    gradient: Tensor | None

    @classmethod
    def of(cls, cloud: Cloud, wanted: bool) -> "_Sample":
        gradient = torch.zeros_like(cloud.points) if wanted else None
        return cls(cloud.points, cloud.weight, gradient)

    def after(self, start: int) -> "_Sample":
        """The points from one on, in the same memory."""
        return _Sample(*(None if t is None else t[..., start:] for t in self))

    def without_points(self) -> "_Sample":
        return _Sample(self.points[:, :0], self.weight[:0], None)


def _add_up(p: _Sample, q: _Sample, across: float, in_p: float, in_q: float, tiling) -> float:
    """The sum over all of p and q, over each pair of p once, over each pair of q once."""
    if not p.weight.shape[0]:
        return _add_up(q, p, across, in_q, in_p, tiling) if q.weight.shape[0] else 0.0
    plain = bool((p.weight == 1).all() and (q.weight == 1).all())
    plan = Plan(plain, p.gradient is None, unit_of(p.points, q.points), tiling)
    a, b = (cut(*s, middle(p.points), plan.unit, tiling.block) for s in (p, q))
    total = _strips(p, a, in_p, q, b, across, plan)
    if in_q:
        if sum(_far(block) for block in b) > len(b) / 2:  # q is better seen from its own middle
            total += _close(plan, b)
            b = cut(*q, middle(q.points), plan.unit, tiling.block)
        total += _strips(q, b, in_q, q.without_points(), [], 0.0, plan)
    return total + _close(plan, a, b)


def _strips(p: _Sample, a: list[Side], within, q: _Sample, b: list[Side], across, plan) -> float:
    """Adds the tiles of all blocks of p, each with later ones and with all of q."""
    total, size = 0.0, plan.tiling.block
    for i, block in enumerate(a):
        if not _far(block):
            total += _strip(block, a[i + 1 :], within, b, across, plan)
            continue
        rest = p.after((i + 1) * size) if within else p.without_points()
        centre = middle(block.points)
        here, *others = (cut(*s, centre, plan.unit, size) for s in (block[:3], rest, q))
        total += _strip(*here, others[0], within, others[1], across, plan)
        total += _close(plan, here, *others)
    return total


def _far(block: Side) -> bool:
    """Whether a block is a cluster far away: then all its own pairs seem near from the centre."""
    mean = block.rows.mean(1)
    return bool(mean[:-2].dot(mean[:-2]) > 0.8 * mean[-1])  # two spreads from the centre


def _strip(a: Side, rest: list[Side], within, others: list[Side], across, plan: Plan) -> float:
    """Adds the tiles of one block to both sides; returns the distances that no side holds."""
    own = [a, *rest] if within else []
    strip = Strip(a, own + others, plan)
    total = sum(strip.tile(b, within) for b in own) + sum(strip.tile(b, across) for b in others)
    return total + strip.close()


def _close(plan: Plan, *clouds: list[Side]) -> float:
    """Adds what the tiles found to the gradients; returns what the sides hold of the sum."""
    if plan.value_only:
        return 0.0
    return plan.unit * sum(block.close() for blocks in clouds for block in blocks)
