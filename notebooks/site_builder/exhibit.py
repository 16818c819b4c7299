"""An exhibit: everything that one movable picture of a page can show, as plain data."""

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from types import ModuleType
from typing import Any

from labkit import maps
from labkit.bench import Bench, Reading, knobs_of
from labkit.draw import live

KNOB_WORDS = ("name", "help", "unit")


def failure_of(settings: Any) -> ModuleType:
    """The failure mode whose knobs these settings are."""
    return importlib.import_module(type(settings).__module__)


def strip_exhibit(readings: Sequence[Reading], knob: str) -> dict[str, Any]:
    """A strip as stops of one slider, each with the whole picture of its reading.

    Raises:
        ValueError: the bench does not give the same words for a stop, so that the copied line
            would not reproduce it; a repair of the notebook's own may have been on the bench.
    """
    failure = failure_of(readings[0].settings)
    again = failure.run(readings[-1].settings)
    if str(again) != str(readings[-1]):
        raise ValueError(
            f"strip of {knob}: expected a reading that {Bench(failure).failure.__name__} gives "
            f"again, {again}; got {readings[-1]}. Sweep without a repair of your own."
        )
    told = knobs_of(readings[0].settings)[knob]
    places = [_value(getattr(reading.settings, knob)) for reading in readings]
    texts = [f"{place} {told.unit}".rstrip() for place in places]
    words = {word: getattr(told, word) for word in KNOB_WORDS}
    return _stops("strip", failure, words, readings, places, texts)


def cases_exhibit(failure: ModuleType) -> dict[str, Any]:
    """The named cases of a bench as stops of one slider."""
    readings = [failure.run(settings) for settings in failure.CASES.values()]
    words = {"name": "case", "help": "a setting of the whole bench, by name", "unit": ""}
    names = list(failure.CASES)
    return _stops("cases", failure, words, readings, names, names)


def map_exhibit(failure: ModuleType, settings: Any) -> dict[str, Any]:
    """The maps of a failure, one for each choice of the options that are no axis."""
    layers = list(maps.layers(failure))
    choices = {
        name: list(knob.options)
        for name, knob in knobs_of(failure.Settings).items()
        if knob.options and name not in failure.MAP
    }
    first = next(
        index
        for index, layer in enumerate(layers)
        if maps.layer_of(failure, layer) == maps.layer_of(failure, settings)
    )
    return {
        "kind": "map",
        "bench": name_of(failure),
        "choices": choices,
        "first": first,
        "layers": [_layer(failure, layer, tuple(choices)) for layer in layers],
    }


def name_of(failure: ModuleType) -> str:
    """What `Bench` calls a failure."""
    return failure.__name__.rpartition(".")[2]


def line_of(failure: ModuleType, settings: Any) -> str:
    """The line that gives these settings on the bench: what `Bench.code` says there."""
    bench = Bench(failure)
    bench.settings = settings
    return bench.code()


def _layer(failure: ModuleType, settings: Any, choices: Iterable[str]) -> dict[str, Any]:
    chart = live.chart(maps.stored(failure, settings))
    spots = [_spot(failure, settings, spot) for spot in chart.pop("cells")]
    return {**chart, "set": {name: getattr(settings, name) for name in choices}, "stops": spots}


def _spot(failure: ModuleType, settings: Any, spot: dict[str, Any]) -> dict[str, Any]:
    """A cell of a map: where it stands, and what the badge says there."""
    reading = failure.run(replace(settings, **spot["set"]))
    place = {key: spot[key] for key in ("x", "y", "column", "row")}
    return {**place, **_stop(failure, reading, spot["words"].rpartition(": ")[0])}


def _stops(
    kind: str,
    failure: ModuleType,
    knob: dict[str, str],
    readings: Sequence[Reading],
    places: Sequence[str],
    texts: Sequence[str],
) -> dict[str, Any]:
    """Stops of a slider. Equal parts lie side by side, so that they pack well."""
    frames = [live.frame(reading) for reading in readings]
    graphs = {live.topology(reading.report): live.graph(reading.report) for reading in readings}
    numbers = list(graphs)
    stops = [
        {"place": place, **_stop(failure, reading, text)}
        for reading, place, text in zip(readings, places, texts, strict=True)
    ]
    return {
        "kind": kind,
        "bench": name_of(failure),
        "knob": knob,
        "stops": stops,
        "graphs": list(graphs.values()),
        "graph": [numbers.index(live.topology(reading.report)) for reading in readings],
        **{part: [frame[part] for frame in frames] for part in PARTS},
    }


PARTS = ("live", "alt", "timeline", "gradients")  # of a frame, as `live.frame` names them


def _stop(failure: ModuleType, reading: Reading, text: str) -> dict[str, Any]:
    """One position: what is set, what the badge says, and the line that reproduces it."""
    return {
        "text": text,
        "set": {knob: _value(value) for knob, value in asdict(reading.settings).items()},
        "badge": live.badge(reading),
        "code": line_of(failure, reading.settings),
    }


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float | int) else str(value)
