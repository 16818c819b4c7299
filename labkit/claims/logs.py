"""What a log keeps alive: losses as tensors, and as numbers (guide, 1.4)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from labkit.claims.entry import Ruling, claim, truth
from labkit.claims.subjects import normal


class _Saved:
    """A saved tensor that can be counted while something keeps it."""

    alive = 0  # bytes

    def __init__(self, tensor: Tensor) -> None:
        # detached: an output that its own node saves would else keep itself alive
        self.tensor, self.size = tensor.detach(), tensor.numel() * tensor.element_size()
        _Saved.alive += self.size

    def __del__(self) -> None:
        _Saved.alive -= self.size


def kept(log: Callable[[Tensor], object], steps: int = 10) -> float:
    """KiB that autograd still holds after some steps whose loss went into a list."""
    w, entries, before = torch.ones(64, requires_grad=True), [], _Saved.alive
    for seed in range(steps):
        with saved_tensors_hooks(_Saved, lambda saved: saved.tensor):
            loss = (normal(16, 64, seed=seed) * w).sigmoid().mean()
        entries.append(log(loss))
    del loss
    return (_Saved.alive - before) / 1024


@claim(
    "G11",
    chinese="只在记录日志时调用.item()，计算中保持张量形式",
    english="Call .item() for logging only, and keep tensors in computations.",
    where="1.4 .item(), rule",
    verdict="holds",
)
def item_is_for_the_log(log: Callable[[Tensor], object] = Tensor.item) -> Ruling:
    """What a list of logged losses keeps alive, for three ways to log."""
    number, tensor, detached = kept(log), kept(lambda loss: loss), kept(Tensor.detach)
    return truth(number == 0), (
        f"A list of .item() keeps {number:.0f} KiB of graphs alive after 10 steps, of detached "
        f"losses {detached:.0f}, of the losses themselves {tensor:.0f}: that is the mirror image "
        "of the fault, which the guide does not name."
    )
