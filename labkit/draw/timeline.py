"""The timeline: how large the numbers are, op by op, between the floor and the ceiling of a dtype.

Ops run from left to right: forward, backward, optimizer. A bar spans the magnitudes of one op on a
log axis. NaN and infinities stand in a lane above the ceiling, all-zero tensors in one below the
floor. The space between the tightest bar and its ceiling is the headroom.
"""

import math
from collections.abc import Iterator
from itertools import groupby

from labkit.draw.bars import LIMITS, Bar, bars_of, room
from labkit.draw.scale import BASE, DEPTH, HEADINGS, HEIGHT, LANE, LEFT, RIGHT, TITLE, WIDTH, Scale
from labkit.draw.scene import SMALL, Box, Item, Scene, Words, line, shortened, width_of
from labkit.draw.theme import STATES
from labkit.probes.report import Report


def timeline_scene(report: Report) -> Scene:
    """The timeline of all traced steps."""
    bars = bars_of(report)
    scale = Scale(bars)
    items = [Words(0, TITLE, "Size of the numbers, op by op", bold=True)]
    items += scale.axis()
    if not bars:
        items.append(Words((LEFT + RIGHT) / 2, 110, "no op was traced", "muted", "middle"))
    items += _phases(bars, scale)
    items += _lane(bars, scale)
    for i, bar in enumerate(bars):
        items += scale.bar(i, bar)
    items += _headroom(bars, scale, lower=report.culprit is not None)
    items += _birth(report, bars, scale)
    return Scene(WIDTH, HEIGHT, tuple(items), _alt(report, bars))


def _phases(bars: tuple[Bar, ...], scale: Scale) -> Iterator[Item]:
    """The name of each phase above its bars, the names of modules and functions below them."""
    runs = groupby(range(len(bars)), key=lambda i: bars[i].phase)
    phases = [(phase, list(places)) for phase, places in runs]
    ends = [scale.lefts[places[0]] - 6 for _, places in phases[1:]]
    taken = [0.0, 0.0]  # ends of the names on the two lines below
    for (phase, places), end in zip(phases, [*ends, RIGHT], strict=False):
        left, ops = scale.lefts[places[0]], f"{len(places)} op{'s' * (len(places) > 1)}"
        fitting = (w for w in (f"{phase}, {ops}", phase) if left + width_of(w, SMALL) <= end)
        yield Words(left, HEADINGS, next(fitting, ""), "muted", size=SMALL)
        yield from _groups(places, bars, scale, taken)


def _groups(
    places: list[int], bars: tuple[Bar, ...], scale: Scale, ends: list[float]
) -> Iterator[Item]:
    """A bracket below each run of ops of one module or function; names where there is room."""
    for group, run in groupby(places, key=lambda i: bars[i].group):
        xs = [scale.lefts[i] for i in run]
        left, right = xs[0], xs[-1] + scale.thick
        yield line("axis", (left, BASE + 4), (right, BASE + 4))
        name = shortened(group, max(right - left, 84), SMALL)
        free = [row for row, end in enumerate(ends) if end < left]
        if name and free and right - left > 7 and left + width_of(name, SMALL) <= RIGHT:
            ends[free[0]] = left + width_of(name, SMALL) + 5
            yield Words(left, BASE + 13 + 11 * free[0], name, "muted", size=SMALL)


def _lane(bars: tuple[Bar, ...], scale: Scale) -> Iterator[Item]:
    """Runs of NaN and of infinities in the lane above the ceiling, each with its word."""
    for (_, word), run in groupby(enumerate(bars), key=lambda pair: (pair[1].phase, pair[1].word)):
        places = [i for i, _ in run]
        if word not in ("inf", "nan"):
            continue
        left, right = scale.lefts[places[0]], scale.lefts[places[-1]] + scale.thick
        yield Box(left, LANE, right - left, DEPTH, f"mark {word}", 1, op=bars[places[0]].op)
        said = (STATES[word].word, STATES[word].mark)
        text = next((text for text in said if width_of(text, SMALL) + 2 < right - left), "")
        yield Words((left + right) / 2, LANE + 6, text, f"onmark {word}", "middle", SMALL)


def _headroom(bars: tuple[Bar, ...], scale: Scale, lower: bool) -> Iterator[Item]:
    """The tightest op: how many powers of two it has left, shaded up to its ceiling."""
    told = [i for i, bar in enumerate(bars) if bar.large > 0 and bar.dtype in scale.dtypes]
    rooms = [(room(bars[i]), i) for i in told]
    if not rooms or any(bar.word in ("inf", "nan") for bar in bars):
        return
    left, i = min(rooms)
    x = scale.lefts[i] + scale.pitch / 2
    top, y = scale.y(LIMITS[bars[i].dtype][2]), scale.y(math.log10(bars[i].large))
    yield Box(x - 4, top, 8, max(y - top, 0), "room")
    side, step = ("start", 8) if x < (LEFT + RIGHT) / 2 else ("end", -8)
    words = f"headroom: {left:.0f} powers of two" if left >= 1 else "no headroom left"
    yield Words(x + step, LANE + DEPTH + (24 if lower else 10), words, "title", side, SMALL)


def _birth(report: Report, bars: tuple[Bar, ...], scale: Scale) -> Iterator[Item]:
    """Where the trouble was born: a line through the timeline, with its word."""
    born = report.culprit.position if report.culprit else None
    for i, bar in enumerate(bars):
        if born is not None and bar.op <= born <= bar.last:
            x = scale.lefts[i] + scale.thick / 2
            side, step = ("start", 6) if x < WIDTH * 0.75 else ("end", -6)
            event = report.chain[0].event if report.chain else "born"
            words = f"{event}: {report.ops[born].name}"
            yield line("born line", (x, LANE + DEPTH + 1), (x, BASE))
            yield Words(x + step, LANE + DEPTH + 10, words, "title", side, bold=True)


def _alt(report: Report, bars: tuple[Bar, ...]) -> str:
    large = max((bar.large for bar in bars if bar.large == bar.large), default=math.nan)
    bad = sum(bar.word in ("inf", "nan") for bar in bars)
    return (
        f"Timeline of {len(bars)} ops: largest finite magnitude {large:.1e}; {bad} with NaN or Inf."
    )
