"""How much memory waits for a backward pass."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class _Saved:
    """One tensor that autograd saved; it lives as long as the graph that needs it."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


class Held:
    """Bytes that autograd has saved and not yet let go; parameters are not counted.

    Args:
        work: is run, and what it returns is kept.
    """

    def __init__(self, work: Callable[[], Any]):
        self.now, self.peak = 0, 0
        with torch.autograd.graph.saved_tensors_hooks(self._save, lambda saved: saved.tensor):
            self.result = work()

    def _save(self, tensor: Tensor) -> _Saved:
        saved = _Saved(tensor.detach())  # an output that kept its graph would keep itself
        if not isinstance(tensor, torch.nn.Parameter):
            self._count(tensor.nbytes)
            weakref.finalize(saved, self._count, -tensor.nbytes)
        return saved

    def _count(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)
