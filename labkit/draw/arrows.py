"""A diagram of causes, each arrow with what became of it when it was run."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labkit.draw.layout import Layout, Node, lay_out
from labkit.draw.paint import Picture, paint
from labkit.draw.scene import Box, Curve, Item, Scene, Words, width_of

WIDEST = 24  # letters on a line of a box
LINE, PAD, MARGIN = 15.0, 9.0, 12.0
TIP = 6.0  # length of an arrow's head
LOOKS = {  # verdict: role of its label, mark
    "holds": ("healthy", "✓"),
    "holds with a condition": ("wrong", "≈"),
    "incomplete guard": ("exploding", "◐"),
    "false": ("nan", "✕"),
}


@dataclass(frozen=True)
class Drawn:
    """One arrow: the boxes that it joins, its verdict, and whether the diagram on trial has it."""

    start: str
    end: str
    verdict: str
    told: bool = True


def draw_arrows(boxes: Mapping[str, str], arrows: Sequence[Drawn]) -> Picture:
    """Boxes from cause to effect; on each arrow a label with mark and word.

    Args:
        boxes: key to words.
        arrows: between keys of `boxes`. Those that the diagram on trial lacks have thick lines.

    Raises:
        ValueError: an arrow's end is no key of `boxes`, or its verdict is none of `LOOKS`.
        NoGraphviz: no program that lays graphs out is installed.
    """
    return paint(arrows_scene(boxes, arrows))


def arrows_scene(boxes: Mapping[str, str], arrows: Sequence[Drawn]) -> Scene:
    """The same as plain data."""
    for arrow in arrows:
        _check(arrow, boxes)
    keys = [key for key in boxes if any(key in (a.start, a.end) for a in arrows)]
    texts = [tuple(textwrap.wrap(boxes[key], WIDEST)) for key in keys]
    labels = [(_label(arrow),) for arrow in arrows]
    nodes = tuple(_node(text) for text in (*texts, *labels))
    ends = []
    for number, arrow in enumerate(arrows, len(keys)):
        ends += [((keys.index(arrow.start), 0), (number, 0))]
        ends += [((number, 0), (keys.index(arrow.end), 0))]
    layout = lay_out(nodes, tuple(ends))
    items = [*_lines(layout, arrows), *_boxes(layout, nodes, texts, labels, arrows)]
    paper = Box(0, 0, layout.width + 2 * MARGIN, layout.height + 2 * MARGIN, "paper")
    moved = Scene(layout.width, layout.height, tuple(items)).moved(MARGIN, MARGIN)
    return Scene(paper.width, paper.height, (paper, *moved.items), _alt(boxes, arrows))


def _check(arrow: Drawn, boxes: Mapping[str, str]) -> None:
    for end in (arrow.start, arrow.end):
        if end not in boxes:
            raise ValueError(f"arrow: expected one of {', '.join(boxes)}; got {end!r}")
    if arrow.verdict not in LOOKS:
        raise ValueError(f"verdict: expected one of {', '.join(LOOKS)}; got {arrow.verdict!r}")


def _label(arrow: Drawn) -> str:
    mark = LOOKS[arrow.verdict][1]
    return f"{mark} {arrow.verdict}" if arrow.told else f"{mark} {arrow.verdict}, and not told"


def _node(text: tuple[str, ...]) -> Node:
    width = max(width_of(row) for row in text) + 2 * PAD
    return Node(((width,),), 0.0, LINE * len(text) + PAD, 0.0)


def _lines(layout: Layout, arrows: Sequence[Drawn]) -> list[Item]:
    found: list[Item] = []
    for number, points in enumerate(layout.edges):
        told = arrows[number // 2].told
        start, *rest = points
        path = [("M", *start)]
        path += [("C", *(v for p in rest[i : i + 3] for v in p)) for i in range(0, len(rest), 3)]
        found.append(Curve(tuple(path), "edge" if told else "born"))
        if number % 2:  # the second half of an arrow ends at a box
            x, y = points[-1]
            tip = (("M", x - TIP / 2, y - TIP), ("L", x, y), ("L", x + TIP / 2, y - TIP))
            found.append(Curve(tip, "edge" if told else "born"))
    return found


def _boxes(layout: Layout, nodes, texts, labels, arrows) -> list[Item]:
    roles = ["data"] * len(texts) + [LOOKS[arrow.verdict][0] for arrow in arrows]
    found: list[Item] = []
    places = zip(layout.nodes, nodes, (*texts, *labels), roles, strict=True)
    for (x, y), node, text, role in places:
        found.append(Box(x, y, node.width, node.height, role, LINE / 2 if role != "data" else 2.0))
        for row, words in enumerate(text):
            middle = y + PAD / 2 + LINE * (row + 0.5)
            found.append(Words(x + node.width / 2, middle, words, f"on {role}", "middle"))
    return found


def _alt(boxes: Mapping[str, str], arrows: Sequence[Drawn]) -> str:
    said = (
        f"{boxes[a.start]} leads to {boxes[a.end]}: {a.verdict}{'' if a.told else ', not told'}"
        for a in arrows
    )
    return f"A diagram of {len(arrows)} arrows. {'; '.join(said)}."
