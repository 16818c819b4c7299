"""The frame of the timeline: where a bar stands, how high a magnitude is, where dtypes end."""

import math
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, pairwise

from labkit.draw.bars import LIMITS, Bar
from labkit.draw.scene import SMALL, Box, Item, Words, line

WIDTH, HEIGHT = 640.0, 212.0
LEFT, RIGHT = 40.0, 636.0
TITLE, HEADINGS, LANE, BASE = 7.0, 25.0, 35.0, 180.0  # from top to bottom
DEPTH = 12.0  # of the lanes above the ceiling and below the floor
WIDEST, THIN = 9.0, 2.4  # a bar is at most this wide and at least this high
GAP = 14.0  # between phases
FEW = 0.08  # share of ops below which the limits of a dtype are not drawn
LARGEST = {"float16": "6.6e4", "bfloat16": "3.4e38", "float32": "3.4e38", "float64": "1.8e308"}


class Scale:
    """Where a bar stands and how high a magnitude is."""

    def __init__(self, bars: tuple[Bar, ...]):
        self.dtypes = _dtypes(bars)
        self.low, _, self.high = LIMITS[self.dtypes[-1]]
        changes = (int(a.phase != b.phase) for a, b in pairwise(bars))
        gaps = list(accumulate(changes, initial=0))  # before each bar
        self.pitch = min(WIDEST, (RIGHT - LEFT - GAP * gaps[-1]) / max(len(bars), 1))
        self.lefts = [LEFT + i * self.pitch + GAP * gap for i, gap in enumerate(gaps)]
        self.thick = max(self.pitch - 1, 0.8)  # of a bar

    def y(self, power: float) -> float:
        """Height of a power of ten, inside the picture whatever it is."""
        share = (power - self.low) / (self.high - self.low)
        top, bottom = LANE + DEPTH, BASE - DEPTH
        return bottom - min(max(share, 0.0), 1.0) * (bottom - top)

    def axis(self) -> Iterator[Item]:
        """Grid, lanes and the limits of the dtypes."""
        every = next(n for n in (2, 5, 10, 20, 50, 100, 200) if (self.high - self.low) / n <= 7)
        for power in range(math.ceil(self.low / every) * every, math.ceil(self.high), every):
            y = self.y(power)
            yield line("grid", (LEFT, y), (RIGHT, y))
            yield Words(LEFT - 5, y, f"1e{power}" if power else "1", "muted", "end", SMALL)
        floor = self.y(LIMITS[self.dtypes[-1]][1])
        yield Box(LEFT, floor, RIGHT - LEFT, BASE - floor, "below")
        yield Box(LEFT, LANE, RIGHT - LEFT, DEPTH, "above")
        for dtype in self.dtypes:
            yield from self._limits(dtype)

    def _limits(self, dtype: str) -> Iterator[Item]:
        _, floor, ceiling = LIMITS[dtype]
        top, bottom = self.y(ceiling), self.y(floor)
        yield line("ceiling", (LEFT, top), (RIGHT, top))
        yield line("floor", (LEFT, bottom), (RIGHT, bottom))
        words = f"largest {dtype} {LARGEST[dtype]}"
        y = TITLE if dtype == self.dtypes[-1] else top - 6
        yield Words(RIGHT, y, words, "ceiling word", "end", SMALL)
        yield Words(RIGHT - 3, bottom + 6, "subnormal", "floor word", "end", SMALL)

    def bar(self, i: int, bar: Bar) -> Iterator[Item]:
        """The span of one op's magnitudes; a tensor that is all zero stands in the lower lane."""
        x, width = self.lefts[i], self.thick
        if bar.large > 0:
            top, bottom = self.y(math.log10(bar.large)), self.y(math.log10(bar.small))
            lack = max(0.0, THIN - (bottom - top)) / 2
            role = f"mark {bar.word}" if bar.word in ("inf", "nan") else "mark ok"
            yield Box(x, top - lack, width, bottom - top + 2 * lack, role, op=bar.op)
        elif bar.word == "zero":
            yield Box(x, BASE - DEPTH + 3, width, DEPTH - 6, "mark zero", op=bar.op)


def _dtypes(bars: tuple[Bar, ...]) -> list[str]:
    """The dtypes whose limits are drawn, narrowest first; the last one spans the axis.

    A few float64 ops in a narrower program would squeeze everything: float32 spans it then.
    """
    counts = Counter(bar.dtype for bar in bars if bar.dtype)
    used = {dtype for dtype in LIMITS if counts[dtype] > FEW * counts.total()} or {"float32"}
    if "float64" in used and counts["float64"] * 2 < counts.total():
        used = used - {"float64"} | {"float32"}
    if "float32" in used:
        used.discard("bfloat16")  # the same limits to two digits
    return [dtype for dtype in LIMITS if dtype in used]
