"""torchviz's own picture of a graph, as it would stand beside ours."""

import json
import subprocess
from collections.abc import Callable, Mapping
from warnings import catch_warnings, simplefilter

from matplotlib.patches import Rectangle
from torch import Tensor

from labkit.draw.layout import NoGraphviz, renderers
from labkit.draw.paint import Picture

INCH = 72.0  # points, graphviz's unit
SIZE = 0.85  # of the page that graphviz asks for
GAP, HEAD, EDGE = 40.0, 24.0, 3.0  # points between two graphs, above and below them
INK = "#16191d"
PAPER = {"lightblue": "#add8e6", "darkolivegreen1": "#caff70", "darkolivegreen3": "#a2cd5a"}


def draw_torchviz(**programs: tuple[Tensor, Mapping[str, Tensor]]) -> Picture:
    """What torchviz shows of some graphs, side by side; laid out by graphviz.

    Args:
        **programs: by the name to write above: a value that requires grad, and the parameters
            to look for, name to leaf. torchviz writes the names into the boxes that it finds.

    Breaks when: never, and that is the point: a leaf without a way is not drawn, and a way whose
        slope is zero is drawn as any other.

    Raises:
        NoGraphviz: no program that lays graphs out is installed.

    Source: torchviz, make_dot.
    """
    plans = {name: _laid_out(dot_of(*program)) for name, program in programs.items()}
    sizes = [tuple(map(float, plan["bb"].split(",")[2:])) for plan in plans.values()]
    width = sum(size[0] + GAP for size in sizes)
    height = max(size[1] for size in sizes) + HEAD + EDGE
    figure = Picture(figsize=(SIZE * width / INCH, SIZE * height / INCH))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-GAP / 2, width - GAP / 2), ylim=(HEAD - height, HEAD))
    axes.set_axis_off()
    right, said = 0.0, []
    for (name, plan), size in zip(plans.items(), sizes, strict=True):
        axes.text(right, HEAD / 3, name, fontsize=11, fontweight="bold", color=INK)
        _graph(axes, plan, right, size[1])
        leaves = [leaf for leaf in programs[name][1] if any(map(_says(leaf), plan["objects"]))]
        said.append(f"{name}: {len(plan['objects'])} boxes, leaves {', '.join(leaves)}")
        right += size[0] + GAP
    figure.labkit_alt = f"torchviz. {'. '.join(said)}."
    return figure


def dot_of(value: Tensor, parameters: Mapping[str, Tensor]) -> str:
    """torchviz's answer in graphviz's language."""
    with catch_warnings():
        simplefilter("ignore")  # torchviz asks for a module that newer Pythons have renamed
        from torchviz import make_dot

        return make_dot(value, params=dict(parameters)).source


def _laid_out(source: str) -> dict:
    for program in renderers():
        command = [program, "-Tjson0"]
        run = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
        if run.returncode == 0:
            return json.loads(run.stdout)
    raise NoGraphviz("torchviz graph: expected graphviz-pure or dot; `pip install graphviz-pure`")


def _says(leaf: str) -> Callable[[dict], bool]:
    return lambda node: leaf in node.get("label", "").split()


def _graph(axes, plan: dict, right: float, height: float) -> None:
    """One graph, its upper left corner at (right, 0)."""
    for edge in plan.get("edges", ()):
        end, *points = edge["pos"].split()  # `e,x,y start p p p ...`, three points a cubic
        tip = _moved(end.removeprefix("e,"), right, height)
        curve = [_moved(point, right, height) for point in points[::3]]
        axes.plot(*zip(*curve, strict=True), color=INK, lw=0.8, zorder=0)
        arrow = {"arrowstyle": "-|>", "color": INK, "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", xy=tip, xytext=curve[-1], arrowprops=arrow, zorder=0)
    for node in plan["objects"]:
        _box(axes, node, *_moved(node["pos"], right, height))


def _moved(point: str, right: float, height: float) -> tuple[float, float]:
    x, y = map(float, point.split(","))
    return x + right, y - height


def _box(axes, node: dict, x: float, y: float) -> None:
    width, height = (INCH * float(node[side]) for side in ("width", "height"))
    fill = PAPER.get(node.get("fillcolor", ""), "#d3d3d3")
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(Rectangle(corner, width, height, facecolor=fill, edgecolor=INK, lw=0.8))
    text = node["label"].strip().replace("\\n", "\n")
    axes.text(x, y, text, ha="center", va="center", fontsize=7, color=INK, linespacing=1.1)
