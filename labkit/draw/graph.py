"""The propagation graph: the program line by line, each op coloured by its health.

The upper half of a cell is the value: its colour and mark, and below the name its largest
magnitude. When the gradient that arrives at an op is sick, the lower half says so, after the
value's magnitude where there is room for both.
"""

from collections import Counter
from collections.abc import Iterator

from labkit.draw.fold import Cell, Edge
from labkit.draw.health import (
    gradient_word,
    gravest,
    largest,
    short,
    value_word,
)
from labkit.draw.layout import Point
from labkit.draw.plan import CELL, LONGEST, Plan, name_of, plan
from labkit.draw.scene import SMALL, Box, Curve, Item, Scene, Words, shortened, width_of
from labkit.draw.theme import STATES
from labkit.probes.report import Report

HALF = 15.0  # height of the upper half of a cell
BAD = ("inf", "nan")
BY_GRADIENT = ("vanishing", "exploding")  # verdicts that a gradient's magnitude explains

Health = dict[int, tuple[str, str]]  # op -> words for its value and its gradient


def graph_scene(report: Report) -> Scene:
    """The propagation graph of one traced step."""
    drawn = plan(report)
    layout, program = drawn.layout, drawn.program
    health = health_of(report, drawn)
    if not health:
        return Scene(240, 40, (Words(0, 20, "no forward op was traced", "muted"),), "No graph.")
    items: list[Item] = [Box(a.x, a.y, a.width, a.height, "tint", 5) for a in layout.areas]
    for i, (edge, points) in enumerate(zip(program.edges, layout.edges, strict=True)):
        items += _edge(i, edge, points, report)
    for area in layout.areas:
        name = shortened(area.group.partition("\0")[0], area.width - 10, SMALL)
        items.append(Words(area.x + 6, area.y + 9, name, "label tint", size=SMALL))
    for i in range(len(program.rows)):
        items += _row(i, drawn, report, health)
    below = 20.0 if program.hidden else 0.0
    if program.hidden:
        words = f"{program.hidden} ops in the middle are not drawn"
        items.append(Words(0, layout.height + 12, words, bold=True))
    return Scene(layout.width, layout.height + below, tuple(items), _alt(drawn, health))


def health_of(report: Report, drawn: Plan) -> Health:
    """The words for value and gradient of every cell."""
    return {
        cell.op: (value_word(report, cell), gradient_word(report, cell))
        for row in drawn.program.rows
        for cell in row.cells
    }


def _edge(i: int, edge: Edge, points: tuple[Point, ...], report: Report) -> Iterator[Item]:
    word = gravest(stats.word for stats in report.ops[edge.op].outputs)
    cubics = zip(points[1::3], points[2::3], points[3::3], strict=True)
    path = (("M", *points[0]), *(("C", *a, *b, *c) for a, b, c in cubics))
    if edge.cut:
        yield Curve(path, "edge cut")
        (x, y), *_ = points
        yield Words(x, y + 10, "✂", "title", "middle", 15)
    else:
        yield Curve(path, f"line {word}" if word in BAD else "edge", key=f"e{i}")


def _row(i: int, drawn: Plan, report: Report, health: Health) -> Iterator[Item]:
    row, node, label = drawn.program.rows[i], drawn.nodes[i], drawn.labels[i]
    left, top = drawn.layout.nodes[i]
    if label:
        words = shortened(label, max(node.width, LONGEST), SMALL)
        role = "label tint" if node.group else "label"
        yield Words(left, top + 6, words, role, size=SMALL)
    widths = [width for line in node.lines for width in line]
    for cell, width, (x, y) in zip(row.cells, widths, node.corners(), strict=True):
        yield from _cell(cell, left + x, top + y, width, report, health[cell.op])


def _cell(
    cell: Cell, x: float, y: float, width: float, report: Report, words: tuple[str, str]
) -> Iterator[Item]:
    value, gradient = words
    lower = gradient if gradient != "ok" else value
    name = f"{name_of(cell)} {STATES[value].mark}".strip() if value in BAD else name_of(cell)
    middle, key = x + width / 2, str(cell.op)
    outline = "born" if _born(report) in (cell.op, *cell.folded, *cell.inside) else "hidden"
    half = gradient if gradient != "ok" else "hidden"
    below = _magnitude(report, cell, value)
    if gradient != "ok":
        below = _both("" if value in BAD else below, f"∇ {STATES[gradient].word}", width)
    yield Box(x, y, width, CELL, value, 2, f"v{key}", cell.op)
    yield Box(x, y + HALF, width, CELL - HALF, half, 2, f"g{key}")
    yield Words(middle, y + 8.5, name, f"on {value}", "middle", key=f"n{key}")
    yield Words(middle, y + 21, below, f"on {lower}", "middle", SMALL, key=f"m{key}")
    yield Box(x - 1.5, y - 1.5, width + 3, CELL + 3, outline, 3.5, f"b{key}")


def _both(value: str, gradient: str, width: float) -> str:
    """The value's magnitude and the word for its gradient, or the word alone."""
    text = f"{value} {gradient}" if value and "∇" not in value else gradient
    return text if width_of(text, SMALL) <= width - 2 else gradient


def _magnitude(report: Report, cell: Cell, value: str) -> str:
    outputs, gradient = report.ops[cell.op].outputs, report.ops[cell.op].gradient
    if value in BAD:
        return STATES[value].word
    if gradient and report.verdict in BY_GRADIENT:
        return f"∇ {short(gradient.large)}"
    return "0" if gravest(s.word for s in outputs) == "zero" else short(largest(outputs))


def _born(report: Report) -> int | None:
    """The op that is outlined: the culprit, or the forward op that it differentiates."""
    position = report.culprit.position if report.culprit else None
    if position is None:
        return None
    forward = report.ops[position].forward
    return position if forward is None else forward


def _alt(drawn: Plan, health: Health) -> str:
    values = Counter(value for value, _ in health.values())
    lost = sum(gradient != "ok" for _, gradient in health.values())
    cut = sum(edge.cut for edge in drawn.program.edges)
    return (
        f"Propagation graph of {len(health)} ops in {len(drawn.program.rows)} lines: "
        f"{values['nan']} NaN, {values['inf']} Inf, {lost} with a sick gradient, {cut} cut edges."
    )
