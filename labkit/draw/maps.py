"""The failure map: two knobs, and what becomes of a step at every setting of both.

Columns are values of the first knob, rows of the second. Colour, mark and the word below say the
verdict; a dark line stands where it changes, at its true place on the axis. Marks make way for it.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from labkit.bench import Knob
from labkit.draw.scene import SMALL, Box, Item, Scene, Words, line, width_of
from labkit.draw.theme import STATES
from labkit.maps import FailureMap, Row, place
from labkit.probes.verdict import Verdict

CELL, ROW = 44.0, 24.0  # size of a cell
ASIDE = 8.0  # from a line to the middle of the nearest mark
LEAST = 12.0  # width of a run that has room for its mark between two lines
TITLE, TOP = 8.0, 24.0  # heights: the name of y, the first row
RING = 21.0  # size of the ring around the present setting
NARROWEST = 420.0


class Grid:
    """Where a setting stands on the picture of a map."""

    def __init__(self, chart: FailureMap):
        self.chart = chart
        self.order = tuple(range(len(chart.ys)))
        if not chart.y.options:
            self.order = self.order[::-1]  # a number grows upwards, options are read downwards
        self.left = max(width_of(_value(value)) for value in chart.ys) + 12
        self.right = self.left + CELL * len(chart.xs)
        self.bottom = TOP + ROW * len(chart.ys)

    def x(self, value: Any) -> float:
        """Middle of a column; what lies between two of them stands in its true proportion."""
        knob, xs = self.chart.x, [place(self.chart.x, x) for x in self.chart.xs]
        index, share = _between(xs, place(knob, value))
        return self.left + CELL * (index + 0.5 + share)

    def y(self, row: float) -> float:
        """Middle of a row; a place between two rows if the row is not whole."""
        down = row if self.chart.y.options else len(self.chart.ys) - 1 - row
        return TOP + ROW * (down + 0.5)

    def border(self, value: Any) -> float:
        """Where a change is drawn: half a step before the first value with the new verdict."""
        knob = self.chart.x
        if knob.options:
            return self.x(value) - CELL / 2
        return self.x(value - knob.step / 2)

    def here(self) -> tuple[float, float]:
        """Where the present setting stands; outside the grid, at its edge."""
        chart = self.chart
        at = [place(chart.y, y) for y in chart.ys]
        value = place(chart.y, getattr(chart.settings, chart.y.name))
        return self.x(getattr(chart.settings, chart.x.name)), self.y(sum(_between(at, value)))


def map_scene(chart: FailureMap, here: bool = True) -> Scene:
    """The picture of a map.

    Args:
        here: also a ring around the present setting; the page draws its own, which moves.
    """
    grid = Grid(chart)
    items: list[Item] = [Words(0, TITLE, _title(chart.y), bold=True)]
    items += _rows(grid)
    items += _axis(grid)
    legend = _legend(chart, grid.bottom + 64)
    items += legend
    if here:
        items += ring(*grid.here())
    needed = max(width_of(_title(chart.x), bold=True) + grid.left, _end(legend), NARROWEST)
    width = max(grid.right, needed, width_of(_title(chart.y), bold=True)) + 4
    return Scene(width, grid.bottom + 76, tuple(items), map_words(chart, here))


def ring(x: float, y: float) -> Iterator[Item]:
    """Around the present setting, a light ring below the dark one, so that it stands out."""
    for role in ("stand halo", "stand"):
        yield Box(x - RING / 2, y - RING / 2, RING, RING, role, RING / 2, key=role)


def map_words(chart: FailureMap, here: bool = True) -> str:
    """The map in words: where the bench stands, then one line for each row."""
    rows = (
        f"{chart.y.name} {_value(value)}: {row_words(row)}"
        for value, row in zip(chart.ys, chart.rows, strict=True)
    )
    told = (f"{knob.name} {_told(knob, chart.settings)}" for knob in (chart.x, chart.y))
    now = f", now at {', '.join(told)}" if here else ""
    return "\n".join([f"Map of {chart.x.name} and {chart.y.name}{now}.", *rows])


def row_words(row: Row) -> str:
    """One row: ``healthy, inf from 86.5, nan from 178``."""
    (_, first), *changes = row
    return ", ".join([first, *(f"{word} from {_value(value)}" for value, word in changes)])


def spots(chart: FailureMap) -> list[dict[str, Any]]:
    """The cells for a page: where each stands, what it sets, and what it says."""
    grid = Grid(chart)
    return [
        {
            "x": grid.x(x),
            "y": grid.y(row),
            "column": column,
            "row": line,
            "set": {chart.x.name: x, chart.y.name: chart.ys[row]},
            "words": f"{chart.x.name} {_value(x)} {chart.x.unit}".rstrip()
            + f", {chart.y.name} {_value(chart.ys[row])} {chart.y.unit}".rstrip()
            + f": {chart.verdict(column, row)}",
        }
        for line, row in enumerate(grid.order)
        for column, x in enumerate(chart.xs)
    ]


def other_than(chart: FailureMap, held: dict[str, Any]) -> str:
    """Knobs that no longer stand where they stood when the map was measured."""
    now = asdict(chart.settings)
    return ", ".join(
        f"{name} {_value(value)}" for name, value in held.items() if value != now[name]
    )


def _rows(grid: Grid) -> Iterator[Item]:
    chart = grid.chart
    for row, runs in enumerate(chart.rows):
        y = grid.y(row)
        yield Words(grid.left - 8, y, _value(chart.ys[row]), "ink", "end")
        starts = [grid.left, *(grid.border(value) for value, _ in runs[1:]), grid.right]
        for (left, right), (_, word) in zip(pairwise(starts), runs, strict=True):
            yield Box(left, y - ROW / 2 + 1, right - left, ROW - 2, word)
        for x in starts[1:-1]:
            yield line("born", (x, y - ROW / 2 + 1), (x, y + ROW / 2 - 1))
        for column, value in enumerate(chart.xs):
            word, x = chart.verdict(column, row), _beside(grid.x(value), starts)
            if x is not None:
                yield Words(x, y, STATES[word].mark, f"on {word}", "middle")


def _beside(x: float, starts: list[float]) -> float | None:
    """Where the mark of a column stands, aside from lines; None where its run has no room."""
    run = min(max(bisect_right(starts, x) - 1, 0), len(starts) - 2)
    left, right = starts[run], starts[run + 1]
    if right - left < 2 * ASIDE:
        return (left + right) / 2 if right - left >= LEAST else None
    return min(max(x, left + ASIDE), right - ASIDE)


def _axis(grid: Grid) -> Iterator[Item]:
    room = grid.right
    for value in grid.chart.xs[::-1]:  # the last value always has its number
        x, text = grid.x(value), _value(value)
        yield line("axis", (x, grid.bottom + 2), (x, grid.bottom + 6))
        if x + width_of(text) / 2 <= room + CELL / 2:
            yield Words(x, grid.bottom + 15, text, "ink", "middle")
            room = x - width_of(text) / 2 - CELL / 2 - 4
    yield Words(grid.left, grid.bottom + 34, _title(grid.chart.x), bold=True)


def _legend(chart: FailureMap, y: float) -> list[Item]:
    """Each verdict of the map in its colour, with its mark and its word, well ones first."""
    words = {word for row in chart.rows for _, word in row}
    items, x = [], 0.0
    for word in sorted(words, key=lambda name: Verdict(name).rank):
        text = f"{STATES[word].mark} {word}"
        width = width_of(text) + 16
        items += [
            Box(x, y - 9, width, 18, word, 3),
            Words(x + 8, y, text, f"on {word}"),
        ]
        x += width + 8
    text = "line: the verdict changes here; ring: the bench stands here"
    return [*items, Words(x + 4, y, text, "muted", size=SMALL)]


def _end(items: list[Item]) -> float:
    last = items[-1]
    return last.x + width_of(last.text, SMALL)


def _between(places: list[float], value: float) -> tuple[int, float]:
    """Which place lies at or before a value, and what share of the way to the next it is."""
    index = max(bisect_right(places, value) - 1, 0)
    if index == len(places) - 1:
        return index, 0.0
    low, high = places[index], places[index + 1]
    return index, min(max((value - low) / (high - low), 0.0), 1.0)


def _title(knob: Knob) -> str:
    unit = f" in {knob.unit}" if knob.unit else ""
    return f"{knob.name}{unit}: {knob.help}"


def _told(knob: Knob, settings: Any) -> str:
    return f"{_value(getattr(settings, knob.name))} {knob.unit}".rstrip()


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float | int) else str(value)
