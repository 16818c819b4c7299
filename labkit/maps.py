"""Failure maps: the verdict over two knobs, measured once and kept as plain data.

A row of a map is a list of changes: from which value of x on which verdict holds. Every value of
the grid is measured, and each change between two of them is found to one step of the knob.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from itertools import pairwise, product
from math import isnan
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

from labkit.bench import Knob, knobs_of

Row = tuple[tuple[Any, str], ...]  # (value of x, verdict from there on), in the order of x
SAMPLE = 8  # cells of a stored map that are measured again by each build and each test
SLACK = 2  # steps of the knob


@dataclass(frozen=True)
class FailureMap:
    """Verdicts over two knobs; the other knobs stand where `settings` has them."""

    x: Knob
    y: Knob
    xs: tuple[Any, ...]
    ys: tuple[Any, ...]
    rows: tuple[Row, ...]  # one for each of `ys`
    settings: Any  # of the bench: where it stands on the map, and what holds for all of it

    def verdict(self, column: int, row: int) -> str:
        """What was measured at a point of the grid."""
        return _word(self, row, place(self.x, self.xs[column]))

    @property
    def verdicts(self) -> tuple[tuple[str, ...], ...]:
        """The whole grid, a tuple for each of `ys`."""
        columns = range(len(self.xs))
        return tuple(tuple(self.verdict(c, r) for c in columns) for r in range(len(self.ys)))


def _word(chart: FailureMap, row: int, at: float) -> str:
    """The verdict of a row at a place on the knob of x."""
    before = [word for value, word in chart.rows[row] if place(chart.x, value) <= at]
    return before[-1] if before else chart.rows[row][0][1]


def place(knob: Knob, value: Any) -> float:
    """Where a value stands on its knob: the number itself, or the position of the option."""
    return float(knob.options.index(value)) if knob.options else value


def measured(
    run: Callable[[Any], Any], settings: Any, x: str, y: str, xs: Sequence, ys: Sequence
) -> FailureMap:
    """Measure a map, every value of the grid and every change between two of them.

    Args:
        run: settings to a reading.
        settings: where the other knobs stand.
        x, y: names of two knobs.
        xs, ys: their values, in the order of the knob.
    """
    knobs = knobs_of(settings)
    rows = (_row(run, replace(settings, **{y: value}), knobs[x], xs) for value in ys)
    return FailureMap(knobs[x], knobs[y], tuple(xs), tuple(ys), tuple(rows), settings)


def _row(run: Callable[[Any], Any], settings: Any, x: Knob, xs: Sequence) -> Row:
    @cache
    def judge(value: Any) -> str:
        return str(run(replace(settings, **{x.name: value})).verdict)

    changes = [change for low, high in pairwise(xs) for change in _changes(judge, x, low, high)]
    return ((xs[0], judge(xs[0])), *changes)


def _changes(judge: Callable[[Any], str], x: Knob, low: Any, high: Any) -> list[tuple[Any, str]]:
    """Where the verdict changes between two values, by halving what lies between them."""
    if judge(low) == judge(high):
        return []
    steps = 1 if x.options or isnan(x.step) else round((high - low) / x.step)
    if steps <= 1:
        return [(high, judge(high))]
    middle = round(low + steps // 2 * x.step, 10)
    return [*_changes(judge, x, low, middle), *_changes(judge, x, middle, high)]


def layers(failure: ModuleType) -> Iterator[Any]:
    """Settings for each map of a failure: all options of the knobs that are no axis.

    Dials that are no axis stand where they stand in the broken case.
    """
    knobs = knobs_of(failure.Settings)
    others = {name: knob.options for name, knob in knobs.items() if _is_layer(failure, knob)}
    for options in product(*others.values()):
        yield replace(failure.CASES["broken"], **dict(zip(others, options, strict=True)))


def stored(failure: ModuleType, settings: Any) -> FailureMap | None:
    """The map of a failure that was measured ahead of time; None where it declares no `MAP`."""
    if not hasattr(failure, "MAP"):
        return None
    (x, xs), (y, ys) = axes(failure)
    kept = _read(failure).get(layer_of(failure, settings), {})
    if list(kept) != list(map(str, ys)):
        raise ValueError(
            f"{path_of(failure)}: expected rows for {y.name} {', '.join(map(str, ys))}; got "
            f"{', '.join(kept) or 'none'}. Measure it anew: `python notebooks/build.py --maps`."
        )
    rows = tuple(tuple(map(tuple, row)) for row in kept.values())
    return FailureMap(x, y, xs, ys, rows, settings)


def axes(failure: ModuleType) -> tuple[tuple[Knob, tuple[Any, ...]], ...]:
    """The two knobs of a failure's map, each with its values."""
    knobs = knobs_of(failure.Settings)
    return tuple(
        (knobs[name], tuple(knobs[name].check(value) for value in values))
        for name, values in failure.MAP.items()
    )


def held(failure: ModuleType) -> dict[str, Any]:
    """Dials that are no axis, and where they stood when the map was measured."""
    knobs = knobs_of(failure.Settings).values()
    names = [k.name for k in knobs if not k.options and k.name not in failure.MAP]
    return {name: getattr(failure.CASES["broken"], name) for name in names}


def layer_of(failure: ModuleType, settings: Any) -> str:
    """The options that tell one map of a failure from another, as text."""
    knobs = knobs_of(failure.Settings).values()
    return ", ".join(
        f"{k.name} {getattr(settings, k.name)}" for k in knobs if _is_layer(failure, k)
    )


def rebuild(failure: ModuleType) -> Path:
    """Measure every map of a failure anew and store them; returns the file."""
    (x, xs), (y, ys) = axes(failure)
    maps = {}
    for settings in layers(failure):
        rows = measured(failure.run, settings, x.name, y.name, xs, ys).rows
        maps[layer_of(failure, settings)] = dict(zip(map(str, ys), rows, strict=True))
    path = path_of(failure)
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        _text({"x": x.name, "y": y.name, "held": held(failure), "maps": maps}), encoding="utf-8"
    )
    _read.cache_clear()
    return path


def disagreements(failure: ModuleType, count: int = SAMPLE) -> list[str]:
    """Measure some cells of the stored maps again: those that say something else now.

    Another processor rounds sums in another order, so a change may lie a little elsewhere there:
    what the map says up to `SLACK` steps of the knob away is accepted too.
    """
    found = (_disagreement(failure, settings, *spot) for settings, spot in _sample(failure, count))
    return [line for line in found if line]


def _sample(failure: ModuleType, count: int) -> Iterator[tuple[Any, tuple[int, int]]]:
    chance, every = Random(failure.__name__), list(layers(failure))
    (_, xs), (_, ys) = axes(failure)
    for settings in chance.choices(every, k=count):
        yield settings, (chance.randrange(len(xs)), chance.randrange(len(ys)))


def _disagreement(failure: ModuleType, settings: Any, column: int, row: int) -> str:
    chart = stored(failure, settings)
    x, value = chart.x, chart.xs[column]
    wanted = replace(settings, **{x.name: value, chart.y.name: chart.ys[row]})
    now, then = str(failure.run(wanted).verdict), chart.verdict(column, row)
    near = [] if x.options else [value - SLACK * x.step, value + SLACK * x.step]
    if now in {then, *(_word(chart, row, place) for place in near)}:
        return ""
    return f"{asdict(wanted)}: the map says {then}, a run says {now}"


def _is_layer(failure: ModuleType, knob: Knob) -> bool:
    return bool(knob.options) and knob.name not in failure.MAP


def path_of(failure: ModuleType) -> Path:
    """Where the maps of a failure are stored: `maps/NAME.json` beside its module."""
    name = failure.__name__.rpartition(".")[2]
    return Path(failure.__file__).parent / "maps" / f"{name}.json"


@lru_cache(maxsize=16)
def _read(failure: ModuleType) -> dict[str, dict[str, list]]:
    path = path_of(failure)
    return json.loads(path.read_text(encoding="utf-8"))["maps"] if path.exists() else {}


def _text(data: dict[str, Any]) -> str:
    """JSON with a line for each row of a map, so that a change is seen in a review."""
    head = (f" {json.dumps(key)}: {json.dumps(data[key])}" for key in ("x", "y", "held"))
    maps = (
        f"  {json.dumps(name)}: {{\n"
        + ",\n".join(f"   {json.dumps(y)}: {json.dumps(row)}" for y, row in rows.items())
        + "\n  }"
        for name, rows in data["maps"].items()
    )
    return "{\n" + ",\n".join([*head, ' "maps": {\n' + ",\n".join(maps) + "\n }"]) + "\n}\n"
