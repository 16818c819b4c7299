"""How many powers of two are left before an op overflows or underflows."""

import math
from functools import cache

import torch

from labkit.probes.events import Event
from labkit.probes.report import Room
from labkit.probes.stats import Stats


@cache
def _limits(dtype: str) -> tuple[float, float]:
    info = torch.finfo(getattr(torch, dtype))
    return math.log2(info.max), math.log2(info.tiny)


def room(stats: Stats) -> tuple[float, float]:
    """Powers of two above the largest and below the smallest magnitude of one tensor."""
    top, bottom = _limits(stats.dtype)
    above = top - math.log2(stats.large) if stats.large > 0 else math.inf
    below = math.log2(stats.small) - bottom if stats.small > 0 else math.inf
    return (-math.inf if stats.bad else above), below


def headroom(events: list[Event]) -> tuple[Room, ...]:
    """One entry per forward op with floating output."""
    found = []
    for event in events:
        if event.phase != "forward":
            continue
        rooms = [room(s) for s in event.outputs if s.dtype.startswith(("float", "bfloat"))]
        if rooms:
            above, below = (min(side) for side in zip(*rooms, strict=True))
            found.append(Room(event.index, above, below))
    return tuple(found)
