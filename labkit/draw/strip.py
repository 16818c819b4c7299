"""The film strip: one knob swept, a small frame for each value, for a reader without a kernel."""

from collections.abc import Iterator, Sequence

from labkit.bench import Reading, knobs_of
from labkit.draw.graph import health_of
from labkit.draw.health import gravest
from labkit.draw.plan import CELL, plan
from labkit.draw.scene import SIZE, SMALL, Box, Item, Scene, Words, line, shortened
from labkit.draw.theme import STATES
from labkit.probes.report import Fate

FRAME, GAP = 104.0, 10.0  # width of a frame, space between frames
PER_ROW = 10
TITLE, VALUE, GRAPH, FILM = 8.0, 32.0, 48.0, 132.0  # heights: the last is that of the graph
LAMP = 6.0  # size of a parameter's lamp
HEIGHT = GRAPH + FILM + 73


def strip_scene(readings: Sequence[Reading], knob: str) -> Scene:
    """Small frames from left to right: value of the knob, graph, parameters, verdict.

    Raises:
        ValueError: no reading, or a knob that the readings do not have.
    """
    if not readings:
        raise ValueError("readings: expected at least one; got none. Use `bench.sweep(knob)`.")
    knobs = knobs_of(readings[0].settings)
    if knob not in knobs:
        raise ValueError(f"knob: expected one of {', '.join(knobs)}; got {knob!r}")
    unit = f" in {knobs[knob].unit}" if knobs[knob].unit else ""
    items: list[Item] = [Words(0, TITLE, f"{knob}{unit}", bold=True)]
    for i, reading in enumerate(readings):
        row, column = divmod(i, PER_ROW)
        frame = Scene(FRAME, HEIGHT, tuple(_frame(reading, knob)))
        items += frame.moved(column * (FRAME + GAP), row * HEIGHT).items
    columns = min(len(readings), PER_ROW)
    rows = (len(readings) - 1) // PER_ROW + 1
    width = columns * (FRAME + GAP) - GAP
    return Scene(width, rows * HEIGHT, tuple(items), strip_words(readings, knob))


def strip_words(readings: Sequence[Reading], knob: str) -> str:
    """The strip in words, one line for each frame."""
    lines = (
        f"{knob} {_value(reading, knob)}: {', '.join([str(reading.verdict), *_alive(reading)])}"
        for reading in readings
    )
    return "\n".join(lines)


def _frame(reading: Reading, knob: str) -> Iterator[Item]:
    verdict = str(reading.verdict)
    state = STATES[verdict]
    middle, foot = FRAME / 2, GRAPH + FILM + 22
    yield line("axis", (0, VALUE - 10), (FRAME, VALUE - 10))
    yield Words(middle, VALUE, shortened(_value(reading, knob), FRAME), "ink", "middle", SIZE, True)
    yield from _film(reading)
    yield from _lamps(reading, GRAPH + FILM + 8)
    yield Box(0, foot, FRAME, 18, verdict, 3)
    yield Words(middle, foot + 9, f"{state.mark} {verdict}", f"on {verdict}", "middle")
    alive, *aside = _alive(reading)
    yield Words(middle, foot + 27, alive, "muted", "middle", SMALL)
    if aside:
        yield Words(middle, foot + 40, ", ".join(aside), "muted", "middle", SMALL)


def _film(reading: Reading) -> Iterator[Item]:
    """The propagation graph without its words, each cell in the colour of its worse half."""
    drawn = plan(reading.report)
    health = health_of(reading.report, drawn)
    layout = drawn.layout
    scale = min(FRAME / max(layout.width, 1), FILM / max(layout.height, 1))
    left = (FRAME - layout.width * scale) / 2
    for row, node, (x, y) in zip(drawn.program.rows, drawn.nodes, layout.nodes, strict=True):
        widths = [width for line in node.lines for width in line]
        for cell, width, (dx, dy) in zip(row.cells, widths, node.corners(), strict=True):
            value, gradient = health[cell.op]
            role = gravest((gradient, "ok" if value == "data" else value))
            corner = (left + (x + dx) * scale, GRAPH + (y + dy) * scale)
            size = (width * scale, CELL * scale)
            yield Box(*corner, *size, value if role == "ok" else role)


def _lamps(reading: Reading, y: float) -> Iterator[Item]:
    """One lamp for each parameter's gradient; a row of at most as many as fit."""
    fates = reading.report.parameters
    size = min(LAMP, FRAME / max(len(fates), 1) - 1)
    if size < 1:
        return
    left = (FRAME - len(fates) * (size + 1) + 1) / 2
    for i, fate in enumerate(fates):
        yield Box(left + i * (size + 1), y, size, LAMP, _lamp(fate))


def _lamp(fate: Fate) -> str:
    """Grey where nothing is expected: no gradient is alive there, and nobody is harmed."""
    if fate.word == "ok" or fate.word not in STATES:
        return "mark ok"
    return "mark data" if fate.excused else fate.word


def _alive(reading: Reading) -> list[str]:
    """As the badge counts: gradients alive, then who is excused and who is harmed."""
    alive, *aside = reading.report.tally
    return [f"{alive} alive", *aside]


def _value(reading: Reading, knob: str) -> str:
    value = getattr(reading.settings, knob)
    return f"{value:g}" if isinstance(value, float) else str(value)
