"""The energy distance of samples whose rows are spread over the ranks of a process group."""

import torch
import torch.distributed as dist
from torch import Tensor

from labkit.kernels.cloud import Cloud
from labkit.kernels.pairwise import distance_sum
from labkit.models.energy import EnergyFunction, fit, sample, shares_of


class _Sharded(EnergyFunction):
    """Each rank sums the pairs of its own rows with all rows; backward needs no message."""

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor, plan: tuple, group):
        rows_x, rows_y, biased = plan
        a, b = Cloud.of(x), Cloud.of(y)
        c, d = (Cloud.of(_gathered(s, n, group)) for s, n in ((x, rows_x), (y, rows_y)))
        xy, to_x, to_all_y = distance_sum(a, d)
        xx, own_x, _ = distance_sum(a, c, to_b=False)
        yy, own_y, _ = distance_sum(b, d, to_b=False)
        sums = torch.tensor([xy, xx, yy], dtype=torch.float64, device=x.device)
        for part in (sums, to_all_y):
            dist.all_reduce(part, group=group)
        to_y = to_all_y.split(rows_y)[dist.get_rank(group)]
        across, in_x, in_y = shares = shares_of(len(c.point_of), len(d.point_of), biased)
        # each own pair stands in the sums twice, once from either end: so does its gradient
        of_x, of_y = across * to_x + 2 * in_x * own_x, across * to_y + 2 * in_y * own_y
        ctx.save_for_backward(x, y, of_x, of_y)
        return x.new_tensor(float(sums @ sums.new_tensor(shares)))


def sharded_energy_distance(
    x: Tensor, y: Tensor, *, biased: bool = False, group: dist.ProcessGroup | None = None
) -> Tensor:
    """`energy_distance` of all ranks' rows together; every rank must call it.

    Args:
        x: (row, axis), this rank's rows; ranks may hold different numbers of rows, also none.
        y: the same of the other sample.
        biased: the V-statistic.
        group: the ranks that take part; all by default.

    Returns:
        On each rank the value of one process that holds all rows. Backward gives each rank the
        gradient of that value for its own rows. Parameters that the ranks share get its gradient
        by a sum over the ranks: where they are averaged, as DDP does, multiply by their number.

    Raises:
        RuntimeError: where torch.distributed is not initialised.
        ValueError, TypeError: on every rank, where the ranks' rows do not fit together. A shape or
            dtype that is wrong by itself is an error on its own rank only, before any message.

    Breaks when: all rows do not fit on each rank; only the distances are shared out.
    """
    if not dist.is_initialized():
        raise RuntimeError("expected ranks; call torch.distributed.init_process_group first")
    if not torch.is_grad_enabled():
        x, y = x.detach(), y.detach()
    x, y = sample(x), sample(y)
    return _Sharded.apply(x, y, (*_agreed(x, y, biased, group), biased), group)


def _agreed(x: Tensor, y: Tensor, biased: bool, group) -> tuple[list[int], list[int]]:
    """How many rows of x and of y each rank holds; an error on all ranks if any are bad."""
    kinds: list = [None] * dist.get_world_size(group)
    dist.all_gather_object(kinds, [(tuple(s.shape), s.dtype) for s in (x, y)], group=group)
    parts = [[torch.empty(n, dtype=t, device="meta") for n, t in kind] for kind in kinds]
    if len({s.dtype for part in parts for s in part}) > 1:
        raise TypeError(f"expected one dtype on all ranks, got (shape, dtype) of x, y: {kinds}")
    if len({s.shape[1] for part in parts for s in part}) > 1:
        raise ValueError(f"expected as many axes on all ranks, got (shape, dtype): {kinds}")
    all_x, all_y = zip(*parts, strict=True)
    fit(torch.cat(all_x), torch.cat(all_y), biased)
    return [len(s) for s in all_x], [len(s) for s in all_y]


def _gathered(x: Tensor, rows: list[int], group) -> Tensor:
    """The rows of all ranks, in the order of the ranks."""
    padded = torch.cat([x, x.new_zeros(max(rows) - len(x), x.shape[1])])
    parts = [torch.empty_like(padded) for _ in rows]
    dist.all_gather(parts, padded, group=group)
    return torch.cat([part[:n] for part, n in zip(parts, rows, strict=True)])
