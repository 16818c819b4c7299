"""`bisect_knob`: the exact float at which something breaks."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import torch

FORMATS = {torch.float32: ("<f", "<i"), torch.float64: ("<d", "<q"), torch.float16: ("<e", "<h")}


@dataclass(frozen=True)
class Edge:
    """Two neighbouring floats: at one all is well, at the next it breaks."""

    healthy: float
    broken: float
    runs: int

    def __str__(self) -> str:
        return f"well at {self.healthy!r}, broken at {self.broken!r} ({self.runs} runs)"


def bisect_knob(
    broken: Callable[[float], bool],
    low: float,
    high: float,
    dtype: torch.dtype = torch.float32,
) -> Edge:
    """Halve between a healthy and a broken value until two neighbouring floats are left.

    Args:
        broken: runs the program with the knob at a value and says whether it broke. It must draw
            the same noise in every call.
        low: one end; one end must be healthy and the other one broken, in either order.
        high: the other end.
        dtype: whose floats are counted: float16, float32 or float64. At most 17, 33 or 65 runs.

    Returns:
        The last healthy and the first broken float. If it breaks and heals several times in
        between, one such edge.

    Raises:
        ValueError: both ends are healthy, both are broken, or an end is not finite.

    Source: bisection on the order of the floats' bits (each step halves their number, not the
        length), so the edge is exact.
    """
    if dtype not in FORMATS:
        raise ValueError(f"dtype: expected one of {', '.join(map(str, FORMATS))}; got {dtype}")
    if not max(abs(low), abs(high)) <= torch.finfo(dtype).max:
        raise ValueError(f"expected two finite ends in {dtype}; got {low} and {high}")
    a, b = _number(low, dtype), _number(high, dtype)
    first, last = bool(broken(_float(a, dtype))), bool(broken(_float(b, dtype)))
    if first == last:
        state = "broken" if first else "healthy"
        raise ValueError(f"expected one healthy and one broken end; {low} and {high} are {state}")
    well, ill, runs = (b, a, 2) if first else (a, b, 2)
    while abs(ill - well) > 1:
        middle = (well + ill) // 2
        runs += 1
        if broken(_float(middle, dtype)):
            ill = middle
        else:
            well = middle
    return Edge(_float(well, dtype), _float(ill, dtype), runs)


def _number(value: float, dtype: torch.dtype) -> int:
    """The place of a float in the order of all floats; zero has place 0."""
    as_float, as_int = FORMATS[dtype]
    bits = struct.unpack(as_int, struct.pack(as_float, abs(value)))[0]
    return -bits if value < 0 else bits


def _float(place: int, dtype: torch.dtype) -> float:
    as_float, as_int = FORMATS[dtype]
    size = struct.unpack(as_float, struct.pack(as_int, abs(place)))[0]
    return -size if place < 0 else size
