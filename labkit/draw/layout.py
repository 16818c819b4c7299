"""Where each row of a folded program goes: graphviz lays it out once per topology.

One pixel is one point of graphviz. y runs downwards here and upwards there.
"""

import json
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

TABLE = '<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0">'

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Node:
    """A block to place: words of a height `head` over lines of cells of these widths."""

    lines: tuple[tuple[float, ...], ...]
    head: float
    cell: float  # height of a cell
    gap: float  # between cells
    least: float = 0.0  # width that the words need
    group: str = ""  # nodes of one group are kept together

    @property
    def width(self) -> float:
        return max(self.least, *(sum(line) + self.gap * (len(line) - 1) for line in self.lines))

    @property
    def height(self) -> float:
        return self.head + len(self.lines) * (self.cell + self.gap) - self.gap

    def corners(self) -> tuple[Point, ...]:
        """Top left corner of each cell, in reading order."""
        found = []
        for row, widths in enumerate(self.lines):
            lefts = (sum(widths[:i]) + self.gap * i for i in range(len(widths)))
            found += [(x, self.head + row * (self.cell + self.gap)) for x in lefts]
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Area:
    """The ground that the nodes of one group stand on."""

    group: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Layout:
    """Size of the picture, top left corner of each node, control points of each edge."""

    width: float
    height: float
    nodes: tuple[Point, ...] = ()
    edges: tuple[tuple[Point, ...], ...] = ()
    areas: tuple[Area, ...] = ()


Ends = tuple[tuple[int, int], tuple[int, int]]  # (node, cell) where an edge starts and ends


class NoGraphviz(RuntimeError):
    """No program that can lay out a graph was found, or none could."""


@lru_cache(maxsize=256)
def lay_out(nodes: tuple[Node, ...], edges: tuple[Ends, ...], turned: bool = False) -> Layout:
    """Place nodes so that edges run downwards; the same question is answered from memory.

    Args:
        nodes: blocks with their sizes in pixels, in reading order.
        edges: from the bottom of a cell to the top of another.
        turned: tell graphviz the nodes in the opposite order. It starts its search there, so it
            may find a better picture.

    Raises:
        NoGraphviz: neither the graphviz-pure wheel nor a system `dot` is there.
    """
    if not nodes:
        return Layout(0.0, 0.0)
    return _placed(_answer(_question(nodes, edges, turned)), nodes, len(edges))


def renderers() -> tuple[str, ...]:
    """Paths of the graphviz programs that are there: the wheel's first, then the system's."""
    beside = Path(sysconfig.get_path("scripts")) / "graphviz-pure"
    found = map(shutil.which, (str(beside), "graphviz-pure", "dot"))
    return tuple(dict.fromkeys(path for path in found if path))


def _answer(question: str) -> dict:
    """The first good answer of a graphviz program."""
    said = "found neither"
    for program in renderers():
        command = [program, "-Tjson0"]
        run = subprocess.run(command, input=question, capture_output=True, text=True, check=False)
        if run.returncode == 0:
            return json.loads(run.stdout)
        said = f"{program} failed with: {run.stderr.strip()[:500]}"
    raise NoGraphviz(
        f"graph layout: expected the program graphviz-pure or dot; {said}. Install one: "
        "`pip install graphviz-pure`, or Graphviz from your system or conda-forge."
    )


def _question(nodes: tuple[Node, ...], edges: tuple[Ends, ...], turned: bool) -> str:
    lines = ["digraph {", "graph [rankdir=TB, nodesep=0.14, ranksep=0.18]"]
    lines += ["node [shape=none, margin=0]", "edge [arrowhead=none]"]
    blocks = [f"n{i} [label=<{_table(node)}>]" for i, node in enumerate(nodes)]
    lines += blocks[::-1] if turned else blocks
    for k, group in enumerate(_groups(nodes)):
        members = " ".join(f"n{i}" for i, node in enumerate(nodes) if node.group == group)
        lines.append(f"subgraph cluster_{k} {{ {HEADING} {members} }}")
    for i, ((tail, start), (head, end)) in enumerate(edges):
        lines.append(f"n{tail}:p{start}:s -> n{head}:p{end}:n [comment={i}]")
    return "\n".join([*lines, "}"])


def _groups(nodes: tuple[Node, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(node.group for node in nodes if node.group))


def _table(node: Node) -> str:
    """A table of empty cells with the sizes of the real ones, so that edges find their ends."""
    rows, port = [_cell(node.width, node.head)] if node.head else [], 0
    for widths in node.lines:
        cells, left = "", node.width
        for width in widths:
            cells += _cell(width, node.cell, f'PORT="p{port}"') + _cell(node.gap, node.cell)
            port, left = port + 1, left - width - node.gap
        cells += _cell(left, node.cell) if left > 0 else ""
        rows.append(f"<TD>{TABLE}<TR>{cells}</TR></TABLE></TD>")
        rows.append(_cell(node.width, node.gap))
    return TABLE + "".join(f"<TR>{row}</TR>" for row in rows[:-1]) + "</TABLE>"


def _cell(width: float, height: float, port: str = "") -> str:
    return f'<TD {port} FIXEDSIZE="TRUE" WIDTH="{width:.0f}" HEIGHT="{height:.0f}"></TD>'


HEADING = f"label=<{TABLE}<TR>{_cell(40, 4)}</TR></TABLE>>; labeljust=l; margin=5;"


def _placed(answer: dict, nodes: tuple[Node, ...], edges: int) -> Layout:
    _, _, width, height = map(float, answer["bb"].split(","))
    things = {thing["name"]: thing for thing in answer["objects"]}
    curves = {int(e["comment"]): _curve(e["pos"], height) for e in answer.get("edges", ())}
    return Layout(
        width,
        height,
        tuple(_corner(things[f"n{i}"]["pos"], node, height) for i, node in enumerate(nodes)),
        tuple(curves[i] for i in range(edges)),
        tuple(
            _area(group, things[f"cluster_{k}"]["bb"], height)
            for k, group in enumerate(_groups(nodes))
        ),
    )


def _corner(pos: str, node: Node, height: float) -> Point:
    x, y = map(float, pos.split(","))
    return x - node.width / 2, height - y - node.height / 2


def _area(group: str, box: str, height: float) -> Area:
    left, low, right, high = map(float, box.split(","))
    return Area(group, left, height - high, right - left, high - low)


def _curve(text: str, height: float) -> tuple[Point, ...]:
    """Control points of a spline: a start, then three for each cubic."""
    points = [p for p in text.split() if p[0] not in "es"]
    return tuple((float(x), height - float(y)) for x, y in (p.split(",") for p in points))
