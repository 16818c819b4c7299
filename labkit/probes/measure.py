"""Stats of a tensor, as cheaply as they can be had: every traced value passes through here."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from labkit.probes.stats import Stats, zeros

COUNTED = 1 << 16  # entries up to which zeros and the smallest magnitude are always counted
LARGE = 1 << 13  # entries from which a second call costs less than a slower pass

_NAMES: dict[torch.dtype, str] = {}
_BITS = {torch.float32: (torch.int32, 0x7FFFFFFF), torch.float64: (torch.int64, (1 << 63) - 1)}


def measure(tensor: Tensor, counted: int = COUNTED) -> Stats:
    """Count and bound one tensor.

    Args:
        tensor: any shape and dtype; sparse tensors by their stored values, complex ones by
            their real and imaginary parts.
        counted: tensors with more entries than this are passed over once only; their ``zero``
            and ``small`` stay unknown unless all entries have one sign.

    Returns:
        A `Stats`. Tensors without values (meta, quantized) give their shape and dtype alone.
    """
    dtype, shape = tensor.dtype, tuple(tensor.shape)
    name = _NAMES.get(dtype) or _NAMES.setdefault(dtype, str(dtype).removeprefix("torch."))
    try:
        return _measure(_plain(tensor), shape, name, counted)
    except (RuntimeError, NotImplementedError, TypeError):
        return Stats(shape, name, math.prod(shape), counted=False)


def glance(tensor: Tensor) -> Stats:
    """Only whether all entries are finite, by their sum; the full count where they may not be."""
    if tensor.is_floating_point() and tensor.layout is torch.strided and tensor.numel() > 1:
        total = tensor.sum().item()
        if total - total == 0:
            return _finite(tensor.shape, tensor.dtype)
    return measure(tensor, counted=0)


@lru_cache(maxsize=1024)
def _finite(shape: torch.Size, dtype: torch.dtype) -> Stats:
    name = str(dtype).removeprefix("torch.")
    return Stats(tuple(shape), name, shape.numel(), counted=False)


def _plain(tensor: Tensor) -> Tensor:
    tensor = tensor.detach() if tensor.requires_grad else tensor
    if tensor.layout is not torch.strided:
        values = tensor.coalesce().values() if tensor.layout is torch.sparse_coo else None
        tensor = tensor.values() if values is None else values
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _measure(tensor: Tensor, shape: tuple, name: str, counted: int) -> Stats:
    size = tensor.numel()
    if size == 1:
        return _one(tensor.item(), shape, name)
    if size == 0 or tensor.dtype is torch.bool:
        return Stats(shape, name, size)
    low, high = _ends(packed(tensor))
    if not (-math.inf < low <= high < math.inf):
        return _sick(tensor, shape, name)
    if low == high == 0:
        return Stats(shape, name, size, 0, 0, 0, size, low, high, math.nan, 0.0)
    if size > counted or low > 0 or high < 0:
        return _within(shape, name, size, low, high)
    zero, small = _smallest(tensor)
    return Stats(shape, name, size, 0, 0, 0, zero, low, high, small, max(-low, high))


def _ends(tensor: Tensor) -> tuple[float, float]:
    """The smallest and the largest entry; either is NaN where an entry is.

    Whole numbers are bounded twice as fast as floats, and the bits of floats of one sign sort
    like whole numbers. Only entries of both signs need a second look.
    """
    if tensor.dtype not in _BITS or tensor.numel() < LARGE:
        low, high = torch.aminmax(tensor)
        return low.item(), high.item()
    low, high = torch.aminmax(tensor.resolve_neg().view(_BITS[tensor.dtype][0]))
    ends = low.view(tensor.dtype).item(), high.view(tensor.dtype).item()
    if low.item() >= 0:
        return ends
    return ends[::-1] if high.item() < 0 else (tensor.amin().item(), ends[1])


def packed(tensor: Tensor) -> Tensor:
    """The same entries in the order in which they lie in memory, repeated ones once.

    A reduction that does not care about order reads a transposed tensor three times as fast so.
    """
    if tensor.is_contiguous():
        return tensor
    sides = [(step, side) for step, side in zip(tensor.stride(), tensor.shape, strict=True) if step]
    total = 1
    for step, side in sorted(side for side in sides if side[1] > 1):
        if step != total:
            return tensor.as_strided([s for _, s in sides], [s for s, _ in sides])
        total *= side
    return tensor.as_strided((total,), (1,))


def _one(value: float | bool, shape: tuple, name: str) -> Stats:
    if isinstance(value, bool):
        return Stats(shape, name, 1)
    if value - value == 0:
        magnitude = abs(value)
        small = magnitude or math.nan
        return Stats(shape, name, 1, 0, 0, 0, int(value == 0), value, value, small, magnitude)
    first = (0,) * len(shape)
    nan = int(value != value)
    return Stats(shape, name, 1, nan, int(value > 0), int(value < 0), first_bad=first)


def _smallest(tensor: Tensor) -> tuple[int, float]:
    """Number of zeros and the smallest magnitude that is not zero."""
    if tensor.dtype not in _BITS:
        if not tensor.is_floating_point():
            return int((tensor == 0).sum()), math.nan
        tensor = tensor.float()
    nearest = tensor.abs().amin().item()
    if nearest > 0:
        return 0, nearest
    whole, mask = _BITS[tensor.dtype]
    # The bits of a magnitude sort like the magnitude; minus one, a zero becomes the largest.
    bits = tensor.contiguous().view(whole).bitwise_and(mask).sub_(1).bitwise_and_(mask)
    near, far = torch.aminmax(bits)
    small = near.add_(1).view(tensor.dtype).item()
    zero = zeros(tensor) if far == mask else 0
    return zero, small


def _sick(tensor: Tensor, shape: tuple, name: str) -> Stats:
    """The full count, for a tensor that holds a NaN or an infinity."""
    finite = tensor.isfinite()
    nan, up = int(tensor.isnan().sum()), int((tensor == math.inf).sum())
    down = int((tensor == -math.inf).sum())
    first = int(finite.flatten().logical_not().to(torch.uint8).argmax())
    inner = tuple(tensor.shape)
    where = tuple(int(i) for i in torch.unravel_index(torch.tensor(first), inner))[: len(shape)]
    healthy = tensor[finite]
    if not healthy.numel():
        return Stats(shape, name, tensor.numel(), nan, up, down, first_bad=where)
    part = _measure(healthy, shape, name, healthy.numel())
    return Stats(
        *(shape, name, tensor.numel(), nan, up, down),
        *(part.zero, part.low, part.high, part.small, part.large, where),
    )


def flipped(stats: Stats) -> Stats:
    """The stats of the same entries with the other sign."""
    return Stats(
        *(stats.shape, stats.dtype, stats.size, stats.nan, stats.neg_inf, stats.pos_inf),
        *(stats.zero, -stats.high, -stats.low, stats.small, stats.large),
        *(stats.first_bad, stats.counted),
    )


def shifted(stats: Stats, func, args: tuple) -> Stats | None:
    """The stats of a large floating tensor after a function that keeps or turns its order.

    ``+ - * /`` with a number round every entry to the nearest, so that the results for the two
    ends are the ends of the result. Those of ``exp``, ``log`` and their like may be one rounding
    beside them. None where that does not tell all.
    """
    if stats.size <= COUNTED or stats.bad or any(isinstance(one, Tensor) for one in args[1:]):
        return None
    ends = torch.tensor((stats.low, stats.high), dtype=args[0].dtype, device=args[0].device)
    low, high = sorted(func(ends, *args[1:]).tolist())
    if not (-math.inf < low < high < math.inf):
        return None
    return _within(stats.shape, stats.dtype, stats.size, low, high)


def _within(shape: tuple, name: str, size: int, low: float, high: float) -> Stats:
    """What two finite ends tell; zeros are counted only if there can be none."""
    if low > 0 or high < 0:
        near, far = sorted((abs(low), abs(high)))
        return Stats(shape, name, size, 0, 0, 0, 0, low, high, near, far)
    return Stats(shape, name, size, low=low, high=high, large=max(-low, high), counted=False)


def respan(stats: Stats, shape: tuple[int, ...]) -> Stats:
    """The stats of a view that holds the same entries in another shape."""
    if stats.shape == shape:
        return stats
    first = stats.first_bad
    if first is not None:
        first = _renumber(first, stats.shape, shape)
    return Stats(
        *(shape, stats.dtype, stats.size, stats.nan, stats.pos_inf, stats.neg_inf, stats.zero),
        *(stats.low, stats.high, stats.small, stats.large, first, stats.counted),
    )


def _renumber(index: tuple, old: tuple, new: tuple) -> tuple[int, ...]:
    flat = 0
    for position, extent in zip(index, old, strict=False):
        flat = flat * extent + position
    out = []
    for extent in reversed(new):
        flat, position = divmod(flat, extent)
        out.append(position)
    return tuple(reversed(out))
