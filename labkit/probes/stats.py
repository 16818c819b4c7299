"""What a tensor holds, counted so that nothing can hide: NaN, infinities, zeros, subnormals."""

import math
from dataclasses import dataclass
from functools import cache

import torch

PART = 1 << 16  # entries that are binned at a time
LANES = 4  # copies of the bins: neighbours of one decade need not wait for each other
DECADES = range(-46, 40)  # float32 reaches from 1.4e-45 (subnormal) to 3.4e38


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts and range of one tensor. Range entries are NaN where nothing finite exists.

    ``low`` and ``high`` bound the finite part; ``small`` and ``large`` are its smallest
    non-zero and its largest magnitude; ``first_bad`` is the index of the first NaN or
    infinity in row-major order. Where ``counted`` is False the tensor was too large to look
    at every entry twice: ``zero`` and ``small`` are then unknown (0 and NaN), the rest is exact.
    """

    shape: tuple[int, ...]
    dtype: str
    size: int
    nan: int = 0
    pos_inf: int = 0
    neg_inf: int = 0
    zero: int = 0
    low: float = math.nan
    high: float = math.nan
    small: float = math.nan
    large: float = math.nan
    first_bad: tuple[int, ...] | None = None
    counted: bool = True

    @property
    def bad(self) -> int:
        """Number of entries that are NaN or infinite."""
        return self.nan + self.pos_inf + self.neg_inf

    @property
    def word(self) -> str:
        """``nan``, ``inf``, ``zero`` (all of it), ``empty`` or ``ok``."""
        if self.nan:
            return "nan"
        if self.bad:
            return "inf"
        if self.size == 0:
            return "empty"
        return "zero" if self.zero == self.size else "ok"


@dataclass(frozen=True, slots=True)
class Histogram:
    """A gradient's magnitudes by decade; the special values have bins that are always there.

    ``decades[i]`` counts the entries with ``10**DECADES[i] <= |g| < 10**(DECADES[i] + 1)``
    (an entry within one rounding of an edge may fall on either side);
    float64 values beyond either end are counted in the end bins. ``subnormal`` entries are
    counted in their decade too. ``nan + pos_inf + neg_inf + zero + sum(decades) == size``.
    """

    size: int
    decades: tuple[int, ...]
    nan: int = 0
    pos_inf: int = 0
    neg_inf: int = 0
    zero: int = 0
    subnormal: int = 0

    @property
    def special(self) -> dict[str, int]:
        """The five bins that a plain histogram drops."""
        return {
            "NaN": self.nan,
            "+Inf": self.pos_inf,
            "-Inf": self.neg_inf,
            "zero": self.zero,
            "subnormal": self.subnormal,
        }


def histogram(tensor: torch.Tensor) -> Histogram:
    """Count a tensor's magnitudes by decade, every special value in a bin of its own.

    Args:
        tensor: any real floating tensor, of any shape; half precision is widened first,
            and subnormal is judged in the tensor's own dtype.

    Returns:
        A `Histogram` whose counts add up to the number of entries.
    """
    values = tensor.detach().reshape(-1)
    values = values if values.dtype in (torch.float32, torch.float64) else values.float()
    tiny = torch.finfo(tensor.dtype).tiny
    parts = [_part(part, tiny) for part in values.split(PART)]
    decades, nan, pos_inf, neg_inf, subnormal = (sum(column) for column in zip(*parts, strict=True))
    counts = tuple(int(count) for count in decades.tolist())
    zero = values.numel() - sum(counts) - nan - pos_inf - neg_inf
    return Histogram(values.numel(), counts, nan, pos_inf, neg_inf, zero, subnormal)


def _part(values: torch.Tensor, tiny: float) -> tuple[torch.Tensor, int, int, int, int]:
    """Counts by decade, then NaN, +Inf, -Inf and subnormal, of what fits into a cache."""
    sizes = values.abs()
    if sizes.numel() and sizes.amax().item() < math.inf:
        # The logarithm of a zero or a subnormal is slow: first take all of them for the smallest
        # normal number, and look again only where some lie in its decade that are not zero.
        floor = max(tiny, 10.0 ** (DECADES.start + 1))
        decades = _bins(sizes.clamp_(min=floor), normal=True)
        lowest = math.floor(math.log10(floor)) - DECADES.start
        held = decades[lowest].item()
        if not held or held == zeros(values):
            decades[lowest] = 0
            return decades, 0, 0, 0, 0
        sizes = values.abs()
    nan = int(values.isnan().sum())
    pos_inf, neg_inf = int((values == math.inf).sum()), int((values == -math.inf).sum())
    subnormal = int(((sizes < tiny) & (values != 0)).sum())
    return _bins(sizes), nan, pos_inf, neg_inf, subnormal


def zeros(values: torch.Tensor) -> int:
    """Number of zeros; written as float32, ones add up exactly to 2**24 and fast."""
    if values.numel() > 1 << 24:
        return values.numel() - int(values.count_nonzero())
    found = torch.empty(values.shape, dtype=torch.float32, device=values.device)
    return int(torch.eq(values, 0, out=found).sum())


@cache
def _lanes(device: torch.device) -> torch.Tensor:
    """What numbers the decades from 0, in as many copies of the bins as there are lanes."""
    return torch.arange(PART, device=device) % LANES * float(len(DECADES)) - DECADES.start


def _bins(sizes: torch.Tensor, normal: bool = False) -> torch.Tensor:
    """Counts by decade; zeros and what is not finite are not counted.

    `normal`: float32 without zeros, NaN or infinities, so that nothing has to be left out.
    """
    decade = sizes.log10_().floor_()
    if not (normal and decade.dtype is torch.float32):
        decade = decade[decade.isfinite()].clamp(DECADES.start, DECADES.stop - 1)
    bins = decade.add_(_lanes(decade.device)[: len(decade)]).int()
    counts = torch.bincount(bins, minlength=LANES * len(DECADES))
    return counts.view(LANES, -1).sum(0).double()
