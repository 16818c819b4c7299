"""What autograd keeps until backward, and whether chunks make it less (guide, 2)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from labkit.claims.entry import Ruling, claim, protection
from labkit.claims.subjects import normal

INF = float("inf")
Distance = Callable[[Tensor, Tensor], Tensor]


@claim(
    "G60",
    chinese="energy_distance: 分块计算防止内存溢出",
    english="Computing the energy distance in chunks prevents running out of memory.",
    where="2 operator guard 3",
    verdict="incomplete guard",
)
def chunks_save_memory(recompute: bool = False, rows: int = 512) -> Ruling:
    """MiB that wait for backward: in one piece, in chunks, in recomputed chunks, under no_grad."""
    x, y = (normal(rows, 8, seed=s) for s in (0, 1))

    def whole(a: Tensor) -> Tensor:
        return torch.cdist(a, y).sum()

    def parts(a: Tensor) -> Tensor:
        return torch.stack([torch.cdist(part, y).sum() for part in a.split(64)]).sum()

    def again(a: Tensor) -> Tensor:
        one = [
            checkpoint(whole, part, use_reentrant=False, preserve_rng_state=False)
            for part in a.split(64)
        ]
        return torch.stack(one).sum()

    one, chunked, recomputed = (waiting(f, x) for f in (whole, parts, again))
    with torch.no_grad():
        untracked = waiting(parts, x)
    return protection(
        stops=untracked < 0.1 * one, leaks=(recomputed if recompute else chunked) > 0.5 * one
    ), (
        f"{rows} x {rows} distances hold {one:.2f} MiB for backward in one piece, {chunked:.2f} in "
        f"chunks, {recomputed:.2f} in chunks that are computed anew, {untracked:.2f} under no_grad."
    )


def waiting(f: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """MiB of results that autograd keeps until backward; the leaf itself is not counted."""
    sizes: dict[int, int] = {}

    def pack(saved: Tensor) -> Tensor:
        if not saved.is_leaf:
            sizes[saved.data_ptr()] = saved.numel() * saved.element_size()
        return saved

    leaf = x.clone().requires_grad_()
    with saved_tensors_hooks(pack, lambda saved: saved):
        kept = f(leaf)  # alive, so that no address is used twice
    return sum(sizes.values()) / 2**20 + 0 * float(kept.detach())
