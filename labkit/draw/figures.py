"""Whole pictures for a notebook without a kernel: one reading, or a strip of many."""

from collections.abc import Iterable, Sequence

from labkit.bench import Reading, knobs_of
from labkit.board import Board
from labkit.draw.board import board_scene
from labkit.draw.gradients import gradients_scene
from labkit.draw.graph import graph_scene
from labkit.draw.maps import map_scene
from labkit.draw.paint import Picture, paint
from labkit.draw.scene import Box, Item, Scene, Words, shortened, width_of
from labkit.draw.strip import strip_scene
from labkit.draw.theme import STATES
from labkit.draw.timeline import timeline_scene
from labkit.draw.words import story
from labkit.maps import FailureMap
from labkit.probes.report import Report

MARGIN, GAP, SPACE = 12.0, 28.0, 18.0
BADGE = 44.0  # height


def draw_graph(report: Report) -> Picture:
    """The propagation graph of one traced step."""
    return paint(_framed(graph_scene(report)))


def draw_timeline(report: Report) -> Picture:
    """How large the numbers are, op by op."""
    return paint(_framed(timeline_scene(report)))


def draw_gradients(report: Report) -> Picture:
    """One histogram per parameter, worst first."""
    return paint(_framed(gradients_scene(report)))


def draw_picture(reading: Reading) -> Picture:
    """What the panel shows, as one figure: badge, graph, timeline and gradients."""
    return paint(picture_scene(reading))


def draw_strip(readings: Sequence[Reading], knob: str) -> Picture:
    """A film strip of one knob: at a glance, where it breaks and what stays alive.

    Args:
        readings: from `Bench.sweep(knob)`, in the order of the knob.
        knob: the name of the knob that was swept.

    Raises:
        ValueError: no reading, or a knob that the readings do not have.
    """
    return paint(_framed(strip_scene(readings, knob)))


def draw_map(chart: FailureMap) -> Picture:
    """A failure map: the verdict over two knobs, and where the bench stands.

    Args:
        chart: from `Bench.map()`.
    """
    return paint(_framed(map_scene(chart)))


def draw_board(board: Board) -> Picture:
    """Every tensor of a training run, and how much of it is bad up to the present moment.

    Args:
        board: such as `watch_it_spread.board(bench.settings)`.
    """
    return paint(_framed(board_scene(board)))


def picture_scene(reading: Reading) -> Scene:
    """The figure of `draw_picture` as plain data."""
    report = reading.report
    graph, timeline = graph_scene(report), timeline_scene(report)
    gradients, said = gradients_scene(report), _said(reading, timeline.width)
    left, top, right = graph.width + GAP, BADGE + 16, timeline.width
    places = ((0, graph), (left, timeline), (left, gradients), (left, said))
    items, y = [*_badge(reading, left + right)], top
    for x, scene in places:
        items += scene.moved(x, y).items
        y += scene.height + SPACE if x else 0
    alt = " ".join([f"{reading}.", graph.alt, timeline.alt, gradients.alt])
    return _framed(Scene(left + right, max(y - SPACE, top + graph.height), tuple(items), alt))


def _said(reading: Reading, width: float) -> Scene:
    """The settings of the knobs, and how the trouble spread."""
    knobs = knobs_of(reading.settings)
    settings = ", ".join(
        f"{name} {getattr(reading.settings, name)} {knob.unit}".strip()
        for name, knob in knobs.items()
    )
    lines = [settings, *(story(reading.report) if reading.report.chain else ())]
    words = (
        Words(0, 8 + 16 * i, shortened(text, width), bold=not i) for i, text in enumerate(lines)
    )
    return Scene(width, 16.0 * len(lines), tuple(words))


def _badge(reading: Reading, width: float) -> Iterable[Item]:
    name = str(reading.verdict)
    yield Box(0, 0, width, BADGE, name, 5)
    yield Words(24, BADGE / 2, STATES[name].mark, f"on {name}", "middle", 22)
    yield Words(46, BADGE / 2, f"{name}:", f"on {name}", size=15, bold=True)
    left = 46 + width_of(f"{name}:", 15, True) + 7
    yield Words(
        left, BADGE / 2, shortened(reading.detail, width - left - 8, 13), f"on {name}", size=13
    )


def _framed(scene: Scene) -> Scene:
    moved = scene.moved(MARGIN, MARGIN)
    paper = Box(0, 0, scene.width + 2 * MARGIN, scene.height + 2 * MARGIN, "paper")
    return Scene(paper.width, paper.height, (paper, *moved.items), scene.alt)
