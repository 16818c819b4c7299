"""The plan of a graph: what a slider does not move. Made once per topology, then remembered."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from itertools import count, groupby, pairwise
from math import dist

from labkit.draw.cells import blamed_lines, severed_parameters
from labkit.draw.fold import Cell, Program, Row, fold, step_of
from labkit.draw.layout import Layout, Node, lay_out
from labkit.draw.scene import SMALL, shortened, width_of
from labkit.probes.report import Op, Report

WIDTH, HEIGHT = 480.0, 600.0  # the picture that a plan should fit
CELL, GAP = 28.0, 2.0  # height of a cell, space between cells
HEAD = 13.0  # height of the words above a row
LEAST, LONGEST = 36.0, 96.0  # width of a cell; of the words above a row
MANY = 40  # rows; above, one layout must do
LINES = range(110, 300, 20)  # widths at which a row may break
WIRE = 20_000.0  # px of edges that are as bad as shrinking the picture to nothing
KEPT = 32  # plans that are remembered


@dataclass(frozen=True, slots=True)
class Plan:
    """A folded program, its blocks and where they stand."""

    program: Program
    labels: tuple[str, ...]  # words above each row, "" where the ground says it
    nodes: tuple[Node, ...]
    layout: Layout
    number: int  # another one for every plan that was ever made


_numbers = count()
_plans: OrderedDict[int, Plan] = OrderedDict()


def plan(report: Report) -> Plan:
    """The plan for this topology, from memory where it was made before."""
    kinds = tuple(map(_kind, report.ops))
    cuts = severed_parameters(report), blamed_lines(report)
    key = hash((report.topology, step_of(report), kinds, cuts))
    if key not in _plans:
        _plans[key] = _made(fold(report))
        while len(_plans) > KEPT:
            _plans.popitem(last=False)
    _plans.move_to_end(key)
    return _plans[key]


def name_of(cell: Cell) -> str:
    """What stands in a cell: the op's name without its path and torch's internal suffix."""
    return shortened(cell.name.rpartition(".")[2].removesuffix("_forward"), LONGEST)


def _kind(op: Op) -> tuple:
    """What `Report.topology` leaves out and a fold looks at."""
    return op.file, op.line, op.kind, op.outputs[0].dtype if op.outputs else ""


def _made(program: Program) -> Plan:
    """Break rows where the whole picture is best; the two best are tried once more, turned."""
    grounds = _grounds(program)
    labels = tuple(_label(row.group, g) for row, g in zip(program.rows, grounds, strict=True))
    edges = tuple((edge.tail, edge.head) for edge in program.edges)
    blocks = tuple(zip(program.rows, labels, grounds, strict=True))
    lines = LINES if len(program.rows) <= MANY else LINES[:1]
    broken = dict.fromkeys(tuple(_node(*block, line) for block in blocks) for line in lines)
    tries = [(lay_out(nodes, edges), nodes) for nodes in broken]
    tries.sort(key=lambda pair: -_merit(pair[0]))
    if len(tries) > 1:
        tries += [(lay_out(nodes, edges, turned=True), nodes) for _, nodes in tries[:2]]
    layout, nodes = max(tries, key=lambda pair: _merit(pair[0]))
    return Plan(program, labels, nodes, layout, next(_numbers))


def _grounds(program: Program) -> list[str]:
    """The ground that each row stands on: shared by rows of a module that follow each other."""
    grounds: list[str] = []
    for number, (top, run) in enumerate(groupby(program.rows, key=lambda row: _top(row.group))):
        rows = list(run)
        grounds += [f"{top}\0{number}" if len(rows) > 1 else ""] * len(rows)
    return grounds


def _merit(layout: Layout) -> float:
    """How large the picture is on the screen, less what its edges cost the eye."""
    scale = min(WIDTH / max(layout.width, 1), HEIGHT / max(layout.height, 1))
    return scale - sum(dist(a, b) for edge in layout.edges for a, b in pairwise(edge)) / WIRE


def _top(group: str) -> str:
    return group.partition(".")[0]


def _label(group: str, ground: str) -> str:
    """Words above a row: nothing that the ground it stands on says already."""
    return group.partition(".")[2] if ground else group.removesuffix(".forward")


def _node(row: Row, label: str, ground: str, line: float) -> Node:
    least = math.ceil(min(width_of(label, SMALL), LONGEST)) if label else 0.0
    widths = [math.ceil(max(LEAST, width_of(name_of(cell)) + 20)) for cell in row.cells]
    return Node(_broken(widths, line), HEAD if label else 0.0, CELL, GAP, least, ground)


def _broken(widths: list[float], line: float) -> tuple[tuple[float, ...], ...]:
    """Fill lines up to a width, then narrow them while their number stays."""
    best = _filled(widths, line)
    while line > max(widths):
        line -= 4
        narrower = _filled(widths, line)
        if len(narrower) > len(best):
            break
        best = narrower
    return best


def _filled(widths: list[float], line: float) -> tuple[tuple[float, ...], ...]:
    lines: list[list[float]] = [[]]
    for width in widths:
        if lines[-1] and sum(lines[-1]) + GAP * len(lines[-1]) + width > line:
            lines.append([])
        lines[-1].append(width)
    return tuple(map(tuple, lines))
