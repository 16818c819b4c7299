"""The bars of the timeline: the magnitudes of each op that computes, in the order of execution."""

import math
from dataclasses import dataclass, replace

from labkit.draw.cells import is_plumbing
from labkit.draw.health import gravest
from labkit.probes.report import Op, Report

PHASES = ("forward", "backward", "optimizer")
MOST = 400  # bars; longer traces are drawn in buckets
LIMITS = {  # log10 of the smallest subnormal, smallest normal and largest number
    "float16": (-7.23, -4.21, 4.82),
    "bfloat16": (-40.04, -37.93, 38.53),
    "float32": (-44.85, -37.93, 38.53),
    "float64": (-323.31, -307.65, 308.25),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One op, or a bucket of ops, on the timeline."""

    op: int
    last: int  # the same as `op`, or the last op of a bucket
    phase: str
    group: str
    word: str
    dtype: str
    small: float
    large: float


def bars_of(report: Report) -> tuple[Bar, ...]:
    """What the timeline shows: every op that computes, in the order of execution."""
    born = report.culprit.position if report.culprit else None
    shown = [
        _bar(op)
        for op in report.ops
        if op.phase in PHASES and op.outputs and (op.index == born or not is_plumbing(op))
    ]
    size = math.ceil(len(shown) / MOST)
    return tuple(_bucket(shown[i : i + size]) for i in range(0, len(shown), max(size, 1)))


def _bar(op: Op) -> Bar:
    small = min((s.small for s in op.outputs if s.small == s.small), default=math.nan)
    large = max((s.large for s in op.outputs if s.large == s.large), default=math.nan)
    if math.isnan(small):
        small = large
    word = gravest(s.word for s in op.outputs)
    dtype = next((s.dtype for s in op.outputs if s.dtype in LIMITS), "")
    return Bar(op.index, op.index, op.phase, op.group.partition(".")[0], word, dtype, small, large)


def _bucket(bars: list[Bar]) -> Bar:
    """Neighbours as one bar: its span holds all of theirs, its word is the gravest."""
    sized = [bar for bar in bars if bar.large == bar.large] or bars
    return replace(
        bars[0],
        last=bars[-1].last,
        word=gravest(bar.word for bar in bars),
        small=min((bar.small for bar in sized if bar.small > 0), default=0.0),  # zeros have no log
        large=max(bar.large for bar in sized),
    )


def room(bar: Bar) -> float:
    """Powers of two that are left between a bar and the ceiling of its dtype."""
    return (LIMITS[bar.dtype][2] - math.log10(bar.large)) / math.log10(2)
