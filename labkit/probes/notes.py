"""What the watched calls leave behind: notes on tensors, and the losses."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from labkit.probes.frames import Place
from labkit.probes.stats import Stats


@dataclass(frozen=True, slots=True)
class Note:
    """Something done to a tensor that is no operator."""

    what: str  # "requires_grad_(False)", "grad = None", "data ="
    tensor: int  # its id
    at: int  # number of events before it
    step: int
    place: Place
    value: Any = None


class Root(NamedTuple):
    """A loss: a tensor from which a backward started, or what a step returned."""

    step: int
    event: int
    value: float
    stats: Stats
    at: int = 0  # number of events when its backward began


def total(tensor: Tensor) -> float:
    """The sum of a loss in float64; 0 for an empty or a complex one."""
    with torch._C._DisableTorchDispatch(), torch.no_grad():
        if not tensor.numel() or tensor.is_complex():
            return 0.0
        return tensor.detach().double().sum().item()
