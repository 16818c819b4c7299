"""What a cell of the picture says: the words for values and gradients, and numbers made short."""

import math

from labkit.draw.fold import Cell
from labkit.probes.report import Report
from labkit.probes.stats import Stats

GRAVITY = ("ok", "empty", "zero", "none", "inf", "nan")


def gravest(words) -> str:
    """The worst of some words; ok if there are none."""
    return max(words, key=GRAVITY.index, default="ok")


def value_word(report: Report, cell: Cell) -> str:
    """``ok``, ``data``, ``empty``, ``inf`` or ``nan``: a cell's values. Zeros are no fault."""
    stats = (s for i in (cell.op, *cell.folded) for s in report.ops[i].outputs)
    word = gravest(s.word for s in stats)
    if word in ("inf", "nan", "empty"):
        return word
    return "data" if cell.data else "ok"


def gradient_word(report: Report, cell: Cell) -> str:
    """``ok``, ``zero``, ``none``, ``inf`` or ``nan``; ok where no gradient is expected.

    A value without a gradient is a fault only where a parameter behind it has none either: a
    detached branch beside a living one is how a straight-through estimator works.
    """
    if cell.data:
        return "ok"
    found = [report.ops[i].gradient for i in (cell.op, *cell.folded)]
    words = [gradient.word for gradient in found if gradient]
    if found[0] is None and cell.lost:
        words.append("none")
    return gravest(words)


def largest(stats: tuple[Stats, ...]) -> float:
    """Largest finite magnitude among some tensors; NaN if there is none."""
    return max((s.large for s in stats if s.large == s.large), default=math.nan)


def short(x: float) -> str:
    """A magnitude in at most six characters: 0.02, 7.3, 178, 3e20."""
    if x != x:
        return "–"
    if math.isinf(x):
        return "∞"
    if x == 0:
        return "0"
    if 0.01 <= abs(x) < 1000:
        return f"{x:.2g}" if abs(x) < 99.5 else f"{x:.0f}"
    mantissa, exponent = f"{x:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def count(n: int) -> str:
    """A count in at most five characters: 976, 48960, 1.2M."""
    if n < 100_000:
        return str(n)
    return f"{n / 1e6:.1f}M" if n < 99_950_000 else f"{n / 1e9:.1f}G"
