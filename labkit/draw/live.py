"""A reading as the data that the page shows: classes, words and SVG text."""

from typing import Any

from labkit.bench import Reading
from labkit.draw.gradients import gradients_scene
from labkit.draw.graph import graph_scene
from labkit.draw.plan import plan
from labkit.draw.scene import Scene
from labkit.draw.svg import css as css
from labkit.draw.svg import plain, role_class, svg
from labkit.draw.theme import STATES
from labkit.draw.timeline import timeline_scene
from labkit.draw.words import cell_of, describe
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


def detail(report: Report, op: int) -> dict[str, Any]:
    """Words about one op, and the cell of the graph that it belongs to."""
    return {"words": describe(report, op), "cell": cell_of(report, op)}


def _picture(scene: Scene) -> dict[str, Any]:
    return {"width": scene.width, "height": scene.height, "svg": svg(scene), "alt": scene.alt}
