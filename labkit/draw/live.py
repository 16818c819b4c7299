"""A reading as the data that the page shows: classes, words and SVG text."""

from typing import Any

from labkit.bench import Reading
from labkit.draw.gradients import gradients_scene
from labkit.draw.graph import graph_scene
from labkit.draw.maps import Grid, map_scene, other_than, spots
from labkit.draw.plan import plan
from labkit.draw.scene import Scene
from labkit.draw.svg import css as css
from labkit.draw.svg import plain, role_class, svg
from labkit.draw.theme import STATES
from labkit.draw.timeline import timeline_scene
from labkit.draw.words import cell_of, describe
from labkit.maps import FailureMap
from labkit.probes.report import Report


def badge(reading: Reading) -> dict[str, str]:
    """Mark, word and line: the words of ``str(reading)``."""
    verdict = str(reading.verdict)
    return {
        "status": verdict,
        "mark": plain(STATES[verdict].mark),
        "word": verdict,
        "line": reading.detail,
    }


def error_badge(error: Exception) -> dict[str, str]:
    """What the badge says when a turn failed."""
    return {"status": "error", "mark": "!", "word": type(error).__name__, "line": str(error)}


def topology(report: Report) -> int:
    """Equal for reports that share one graph."""
    return plan(report).number


def graph(report: Report) -> dict[str, Any]:
    """The graph of this topology: sent when it changes, recoloured by `frame` otherwise."""
    return {"id": topology(report), **_picture(graph_scene(report))}


def frame(reading: Reading) -> dict[str, Any]:
    """Everything that a turn of a numeric knob can change."""
    report = reading.report
    scene = graph_scene(report)
    return {
        "badge": badge(reading),
        "live": {k: [role_class(role), plain(text)] for k, (role, text) in scene.live().items()},
        "alt": scene.alt,
        "timeline": _picture(timeline_scene(report)),
        "gradients": _picture(gradients_scene(report)),
    }


def chart(found: FailureMap) -> dict[str, Any]:
    """The failure map without the ring: sent when another map holds."""
    picture = _picture(map_scene(found, here=False))
    title = f"Map: {found.x.name} and {found.y.name}"
    return {"title": title, **picture, "cells": spots(found)}


def here(found: FailureMap, held: dict[str, Any], repair: Any = None) -> dict[str, Any]:
    """Where the bench stands on its map, and why the map may not hold there.

    Args:
        found: its settings are those of the bench.
        held: knobs that are no axis, as they stood when the map was measured.
        repair: what is on the bench in place of the library's form.
    """
    aside = [f"the map was measured at {words}" for words in [other_than(found, held)] if words]
    if repair is not None:
        aside.append("the map shows the library's forms, and your repair is on the bench")
    x, y = Grid(found).here()
    return {"x": x, "y": y, "aside": "; ".join(aside)}


def detail(report: Report, op: int) -> dict[str, Any]:
    """Words about one op, and the cell of the graph that it belongs to."""
    return {"words": describe(report, op), "cell": cell_of(report, op)}


def _picture(scene: Scene) -> dict[str, Any]:
    return {"width": scene.width, "height": scene.height, "svg": svg(scene), "alt": scene.alt}
