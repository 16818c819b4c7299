"""A reading as the data that the page shows: classes, words and SVG text."""

from typing import Any

from labkit.bench import Reading
from labkit.board import Board
from labkit.draw.board import COLUMN, MARK, ROW, board_scene, spot, squares
from labkit.draw.gradients import gradients_scene
from labkit.draw.graph import graph_scene
from labkit.draw.maps import CELL, Grid, map_scene, other_than, spots
from labkit.draw.maps import ROW as MAP_ROW
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
    return {
        "title": title,
        **picture,
        "cells": spots(found),
        "reach": [CELL / 2, CELL / 2, MAP_ROW / 2],
    }


def board(found: Board) -> dict[str, Any]:
    """The board up to the present moment: sent with every turn."""
    picture = _picture(board_scene(found, here=False))
    reach = [MARK, COLUMN - MARK, ROW / 2]
    title = f"Board: {' and '.join(found.knobs)}"
    return {"title": title, **picture, "cells": squares(found), "reach": reach}


def moment(found: Board) -> dict[str, Any]:
    """Where the ring stands on the board."""
    x, y = spot(found, *found.here)
    return {"x": x, "y": y, "aside": ""}


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
