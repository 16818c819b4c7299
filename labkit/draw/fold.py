"""A traced step folded to what a reader needs: one row per line of code, one cell per op.

Sixty recorded ops are too many nodes for one picture. A *row* is a line of the user's program, a
*cell* is an op of that line. Parameters and buffers fold into the op that uses them; inputs become
cells of the row that reads them. Which op goes where depends on the program alone, never on the
values, so that a cell stays in its place when a knob is turned.
"""

from dataclasses import dataclass, replace

from labkit.draw.cells import blamed_lines, inside_functions, is_drawn, owners, severed_parameters
from labkit.probes.report import Op, Report

ROW_CELLS = 8  # rows merge up to this many ops
LINE_CELLS = 12  # a line that runs longer, such as the only one of a loop, goes on in a new row
LONG = 240  # ops; a longer program is drawn without a part of its middle


@dataclass(frozen=True, slots=True)
class Cell:
    """One op, or one input, as a place in the picture."""

    op: int  # index in Report.ops
    name: str
    data: bool = False  # no gradient is expected here
    folded: tuple[int, ...] = ()  # ops and sources whose health this cell carries too
    inside: tuple[int, ...] = ()  # ops of an autograd Function that this cell stands for
    lost: bool = False  # on the way from a severed parameter to where its graph ends


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the program."""

    group: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Edge:
    """A cell hands its value to another; cells are given as (row, place in the row)."""

    tail: tuple[int, int]
    head: tuple[int, int]
    op: int  # the op that made the value
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """What is drawn: rows in the order of execution, and the edges between them."""

    rows: tuple[Row, ...]
    edges: tuple[Edge, ...]
    hidden: int = 0  # ops in the middle of a very long program that are not drawn


def step_of(report: Report) -> int:
    """The training step that is drawn: the one where the trouble was born, else the last."""
    if report.culprit is not None:
        return report.culprit.step
    return max((op.step for op in report.ops), default=0)


def fold(report: Report) -> Program:
    """Fold the forward pass of one traced step into rows and cells."""
    return _Folding(report).program()


class _Folding:
    """The working tables of one fold; indices are positions in Report.ops."""

    def __init__(self, report: Report):
        step = step_of(report)
        self.ops = report.ops
        forward = [op for op in report.ops if is_drawn(op) and op.step == step]
        self.owner = owners(forward)
        self.inside = inside_functions(forward, self.owner)
        whole = [op for op in forward if self.owner[op.index] == op.index]
        self.mains = _clipped(whole, report.culprit.position if report.culprit else None)
        self.hidden = len(whole) - len(self.mains)
        self.reads = {op.index: self._read_by(op) for op in self.mains}
        self.learns = self._learns()
        severed, blamed = severed_parameters(report), blamed_lines(report)
        ways = self._ways(severed)
        self.cut = {
            op.index
            for op in self.mains
            if op.cut and ((op.file, op.line) in blamed or op.index in ways)
        }
        alone = {i for i, behind in self.learns.items() if behind and behind <= severed}
        self.lost = ways | alone

    def program(self) -> Program:
        rows = self._merged(self._rows())
        drawn = tuple(self._row(row) for row in rows)
        return Program(drawn, tuple(self._edges(rows, drawn)), self.hidden)

    def _read_by(self, op: Op) -> tuple[int, ...]:
        """Ops and sources that this op takes its values from, seen through what is folded."""
        parts = [self.ops[i] for i, main in self.inside.items() if main == op.index]
        found = [self.owner.get(p, p) for part in (*parts, op) for p in part.parents]
        return tuple(i for i in dict.fromkeys(found) if i != op.index)

    def _learns(self) -> dict[int, frozenset[int]]:
        """The parameters that each op depends on; a gradient is expected where there are some."""
        found = {op.index: frozenset({op.index}) for op in self.ops if op.kind == "parameter"}
        for op in self.mains:
            found[op.index] = frozenset().union(*(found.get(i, ()) for i in self.reads[op.index]))
        return found

    def _ways(self, severed: frozenset[int]) -> set[int]:
        """Ops between a severed parameter and its first cut; behind that there is none to cut."""
        alive, ways = set(severed), set()
        for op in self.mains:
            if alive.intersection(self.reads[op.index]):
                ways.add(op.index)
                alive |= set() if op.cut else {op.index}
        return ways

    def _rows(self) -> list[list[int]]:
        """Ops that follow each other on one line of one module, unless the way between is cut."""
        rows: list[list[int]] = []
        before: tuple | None = None
        for op in self.mains:
            line = (op.group, op.file, op.line)
            cut = self.cut.intersection(self.reads[op.index])
            if line != before or cut or len(rows[-1]) == LINE_CELLS:
                rows.append([])
            rows[-1].append(op.index)
            before = line
        return rows

    def _merged(self, rows: list[list[int]]) -> list[list[int]]:
        """Join rows that follow each other without a branch and belong together."""
        while pair := self._mergeable(rows):
            tail, head = pair
            joined = sorted(rows[tail] + rows[head])
            rows = [joined if r == head else row for r, row in enumerate(rows) if r != tail]
        return rows

    def _mergeable(self, rows: list[list[int]]) -> tuple[int, int] | None:
        """Two rows to join next: nothing else lies between them, and neither gets too long."""
        before, after = self._neighbours(rows)
        for head, needs in enumerate(before):
            for tail in sorted(needs):
                straight = after[tail] == {head} or needs == {tail}
                short = len(rows[tail]) + len(rows[head]) <= ROW_CELLS
                alone = len(after[tail]) == 1
                if straight and short and self._related(rows[tail], rows[head], alone):
                    return tail, head
        return None

    def _neighbours(self, rows: list[list[int]]) -> tuple[list[set[int]], list[set[int]]]:
        row_of = {i: r for r, row in enumerate(rows) for i in row}
        before = [
            {row_of[j] for i in row for j in self.reads[i] if j in row_of} - {r}
            for r, row in enumerate(rows)
        ]
        after = [{r for r, needs in enumerate(before) if row in needs} for row in range(len(rows))]
        return before, after

    def _related(self, tail: list[int], head: list[int], alone: bool) -> bool:
        """True for rows that a reader takes as one step; `alone`: nobody else reads the first."""
        first, second = self.ops[tail[-1]], self.ops[head[0]]
        if self.cut.intersection(tail):
            return False
        if first.group == second.group or (first.file, first.line) == (second.file, second.line):
            return True
        data = not any(self.learns[i] for i in tail)
        calls = bool(first.function) and f"{first.function}(" in second.source
        return alone and (data or (calls and len(head) == 1))

    def _row(self, row: list[int]) -> Row:
        sources = dict.fromkeys(j for i in row for j in self.reads[i] if j not in self.owner)
        inputs = [self._input(j) for j in sources if self.ops[j].kind == "input"]
        group = _together([self.ops[i].group for i in row])
        return Row(group, (*inputs, *(self._cell(i) for i in row)))

    def _input(self, source: int) -> Cell:
        return Cell(source, self.ops[source].name, data=True)

    def _cell(self, op: int) -> Cell:
        moved = [i for i, main in self.owner.items() if main == op and i not in (op, *self.inside)]
        kinds = ("parameter", "buffer", "constant")
        silent = [i for i in self.reads[op] if self.ops[i].kind in kinds]
        inside = tuple(i for i, main in self.inside.items() if main == op)
        name = self.ops[op].node.removesuffix("Backward") if inside else self.ops[op].name
        data, lost = not self.learns[op], op in self.lost
        return Cell(op, name.strip("_"), data, (*moved, *silent), inside, lost)

    def _edges(self, rows: list[list[int]], drawn: tuple[Row, ...]) -> list[Edge]:
        row_of = {i: r for r, row in enumerate(rows) for i in row}
        spot = {
            (r, cell.op): (r, k) for r, row in enumerate(drawn) for k, cell in enumerate(row.cells)
        }
        edges: dict[tuple[int, int], Edge] = {}
        for op, reads in self.reads.items():
            for source in reads:
                tail, head = row_of.get(source), row_of[op]
                if tail is not None and tail != head:
                    cut = source in self.cut
                    edge = Edge(spot[tail, source], spot[head, op], source, cut)
                    known = edges.setdefault((tail, head), edge)
                    edges[tail, head] = replace(known, cut=cut and known.cut)
        return list(edges.values())


def _clipped(ops: list[Op], born: int | None) -> list[Op]:
    """A long program's beginning, its end, and the part around the birth."""
    if len(ops) <= LONG:
        return ops
    third = LONG // 3
    near = next((i for i, op in enumerate(ops) if born is not None and op.index >= born), 0)
    kept = {*range(third), *range(len(ops) - third, len(ops))}
    kept |= set(range(near - third // 2, near + third // 2))
    return [op for i, op in enumerate(ops) if i in kept]


def _together(groups: list[str]) -> str:
    """One name for the modules or functions of a row: most ops' own, or the first to the last."""
    most = max(reversed(groups), key=groups.count)
    if 2 * groups.count(most) >= len(groups):
        return most
    return f"{groups[0]} … {groups[-1].rpartition('.')[2]}"
