"""`check_tensor`: one line on what a tensor holds."""

import math

import torch
from torch import Tensor

from labkit.guide.leaves import reals
from labkit.guide.lines import BAD, GOOD, LOOK
from labkit.probes.measure import measure
from labkit.probes.stats import Stats


def check_tensor(t: Tensor | float, safe: float | None = None) -> str:
    """Tell what a tensor holds, in one line that starts with a mark.

    Args:
        t: any shape and dtype, or a number.
        safe: the largest magnitude that passes without a warning. None: the square root of the
            dtype's largest value; beyond it the entry's square is infinite.

    Returns:
        ❌ for NaN, a warning for Inf, for an empty tensor and for magnitudes above `safe`, else ✅;
        then the counts, the first bad index, the range and mean of the finite part (the mean in
        float64) and the share of exact zeros.

    Raises:
        TypeError: `t` is neither a tensor nor a number.

    The guide's original is blind where (each shown in a test):
        NaN hides Inf: it reports only the first kind that it finds.
        1e38 is ✅, although its square overflows.
        Integers and booleans raise at ``mean()``; an empty tensor raises at ``min()``.
        The mean of finite entries can print as inf.
        Exact zeros are not counted, and no position is told.

    Source: the guide, 4.1.
    """
    t = _tensor(t)
    stats = measure(t, counted=t.numel())
    if not stats.size:
        return f"{LOOK} empty, shape {stats.shape}"
    body = ", ".join(part for part in (_range(t, stats), _zeros(stats)) if part)
    if stats.bad:
        mark = BAD if stats.nan else LOOK
        where = f", first at {list(stats.first_bad)}" if stats.first_bad else ""
        return f"{mark} contains {_counts(stats)}{where}; {body or 'nothing finite'}"
    limit = safe if safe is not None else _root(t)
    if stats.large > limit:
        return f"{LOOK} {body}; {_beyond(stats, limit, safe is None)}"
    return f"{GOOD} {body}"


def _tensor(t: Tensor | float) -> Tensor:
    if isinstance(t, Tensor):
        return t
    if isinstance(t, bool | int | float | complex):
        return torch.tensor(t)
    raise TypeError(
        f"check_tensor: expected a tensor or a number; got {type(t).__name__}. "
        "Give the parts of a tuple or a dict one by one."
    )


def _counts(stats: Stats) -> str:
    kinds = {"NaN": stats.nan, "+Inf": stats.pos_inf, "-Inf": stats.neg_inf}
    return ", ".join(f"{kind} ({n}/{stats.size})" for kind, n in kinds.items() if n)


def _range(t: Tensor, stats: Stats) -> str:
    if t.dtype is torch.bool:
        return f"{int(t.sum())} of {stats.size} true"
    if math.isnan(stats.low):
        return ""
    values = reals(t.coalesce().values() if t.is_sparse else t)
    mean = values[values.isfinite()].mean().item()
    return f"min={stats.low:.2e}, max={stats.high:.2e}, mean={mean:.2e}"


def _zeros(stats: Stats) -> str:
    return f"zeros {stats.zero / stats.size:.0%} ({stats.zero}/{stats.size})" if stats.zero else ""


def _root(t: Tensor) -> float:
    floating = t.is_floating_point() or t.is_complex()
    return math.sqrt(torch.finfo(t.dtype).max) if floating else math.inf


def _beyond(stats: Stats, limit: float, square: bool) -> str:
    return f"its square overflows {stats.dtype}" if square else f"beyond {limit:.2e}"
