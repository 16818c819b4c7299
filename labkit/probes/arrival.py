"""The gradient that one backward left on one leaf."""

import math

import torch
from torch import Tensor

from labkit.probes.stats import PART, Stats, histogram


class Arrival:
    """The gradient that one backward left on one leaf."""

    __slots__ = ("event", "histogram", "leaf", "norm", "stats", "step", "taken")

    def __init__(self, leaf: Tensor, grad: Tensor, step: int, stats: Stats, event: int):
        self.leaf, self.step, self.stats, self.event = leaf, step, stats, event
        self.taken = False  # by torch.autograd.grad: nothing was left in .grad
        plain = grad.is_floating_point() and grad.layout is torch.strided
        self.histogram = histogram(grad) if plain else None
        self.norm = _length(grad) if plain else math.nan


def _length(grad: Tensor) -> float:
    """The norm in float64, in parts that stay in the cache; there no float32 square overflows."""
    if grad.dtype is torch.float64:
        return torch.linalg.vector_norm(grad).item()
    parts = (part.double() for part in grad.reshape(-1).split(PART))
    return math.sqrt(sum(torch.dot(part, part).item() for part in parts))
