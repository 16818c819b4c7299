"""The distinct points of a sample, in an order in which neighbours stand together."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Points that stand together: 480² float32 distances (0.9 MB) stay in the cache. At 512 its sets
# collide (a row is then 2 KB), and all that is done to a tile takes 4 % longer.
BLOCK = 480


@dataclass(frozen=True)
class Cloud:
    """The distinct rows of a matrix, in an order in which neighbours share a block.

    Args:
        points: (axis, point), one column for each distinct row.
        weight: (point,), how many rows are equal to it.
        point_of: (row,), the column of each row.
    """

    points: Tensor
    weight: Tensor
    point_of: Tensor

    @classmethod
    def of(cls, x: Tensor, block: int = BLOCK) -> "Cloud":
        """Merges and orders the rows of `x` (row, axis)."""
        x = x.detach()
        first, point_of, count = _distinct(x)
        order = _median_splits(x if len(first) == len(x) else x[first], block)
        rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=x.device))
        points = x.index_select(0, first[order]).t().contiguous()
        return cls(points, count[order].to(x.dtype), rank[point_of])

    def to_rows(self, columns: Tensor) -> Tensor:
        """From (axis, point) to (row, axis)."""
        return columns.index_select(1, self.point_of).t()


def _distinct(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A row for each distinct row of `x`; for every row its place among those; how many have it."""
    rows = x.double().cpu().numpy()
    # Equal rows must get equal keys to the last bit: einsum adds up each row in the same order.
    keys = np.einsum("ij,j->i", rows, np.sin(np.arange(1, x.shape[1] + 1)))
    ordered = np.sort(keys)
    if (ordered[1:] == ordered[:-1]).any():
        found = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        first, place, count = (torch.from_numpy(part).to(x.device) for part in found[1:])
        if torch.equal(x[first[place]], x):
            return first, place, count
    # Unequal rows can share a key. Then nothing is merged: slower, not less exact.
    every = torch.arange(len(x), device=x.device)
    return every, every, torch.ones_like(every)


def _median_splits(x: Tensor, block: int) -> Tensor:
    """An order of the rows of `x` with compact blocks: halved along the widest axis, repeatedly."""
    done, todo = [], [torch.arange(len(x), device=x.device)]
    while todo:
        rows = todo.pop()
        if len(rows) <= block:
            done.append(rows)
            continue
        sample = x[rows[:: len(rows) // 256 + 1]]
        axis = (sample - sample.mean(0)).abs().mean(0).argmax()
        half = -(-len(rows) // (2 * block)) * block
        split = np.argpartition(x[rows, axis].cpu().numpy(), half)
        rows = rows[torch.from_numpy(split).to(x.device)]
        todo += [rows[half:], rows[:half]]
    return torch.cat(done)
