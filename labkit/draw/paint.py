"""A scene on a matplotlib figure: the picture for a reader without a kernel."""

import io

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from PIL import Image

from labkit.draw.scene import FONT, Box, Curve, Scene, Words
from labkit.draw.theme import Ink, inks

SHARP = 2.0  # pixels of the PNG for one pixel of the page
DPI = 100.0
COLOURS = 128  # of the PNG: a third of the size, and no eye tells
CODES = {"M": Path.MOVETO, "L": Path.LINETO, "C": Path.CURVE4}


class Picture(Figure):
    """A figure that a notebook shows as a sharp PNG, with words for those who cannot see it."""

    labkit_alt = ""

    def png(self) -> bytes:
        """The picture in few colours, so that a notebook stays small; same figure, same bytes."""
        drawn, small = io.BytesIO(), io.BytesIO()
        self.savefig(drawn, format="png", dpi=DPI * SHARP)
        with Image.open(drawn) as image:
            image.convert("RGB").quantize(COLOURS).save(small, "png", optimize=True)
        return small.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        width, height = (round(inches * DPI) for inches in self.get_size_inches())
        data = {"image/png": self.png(), "text/plain": self.labkit_alt}
        return data, {"image/png": {"width": width, "height": height}}


def paint(scene: Scene) -> Picture:
    """Draw a scene in its own size."""
    figure = Picture(figsize=(scene.width / DPI, scene.height / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, scene.width), ylim=(scene.height, 0))
    axes.set_axis_off()
    table = inks()
    for order, item in enumerate(scene.items):
        _draw(axes, item, table[item.role], order)
    figure.labkit_alt = scene.alt
    return figure


def _draw(axes, item, ink: Ink, order: int) -> None:
    match item:
        case Box() if ink.fill or ink.stroke:
            axes.add_patch(_box(item, _style(ink, order)))
        case Words() if item.text:
            _words(axes, item, ink, order)
        case Curve() if ink.stroke:
            axes.add_patch(PathPatch(_path(item), **_style(ink, order)))


def _style(ink: Ink, order: int) -> dict:
    points = 72 / DPI
    style = {
        "facecolor": ink.fill or "none",
        "edgecolor": ink.stroke or "none",
        "linewidth": ink.width * points if ink.stroke else 0,
        "zorder": order,
        "capstyle": "butt",
    }
    if ink.dash:
        style["linestyle"] = (0, tuple(length / ink.width for length in ink.dash))
    return style


def _box(box: Box, style: dict):
    if not box.round:
        return Rectangle((box.x, box.y), box.width, box.height, **style)
    rounding = f"round,pad=0,rounding_size={min(box.round, box.width / 2, box.height / 2)}"
    return FancyBboxPatch((box.x, box.y), box.width, box.height, rounding, **style)


def _words(axes, words: Words, ink: Ink, order: int) -> None:
    side = {"start": "left", "middle": "center", "end": "right"}[words.anchor]
    axes.text(
        words.x,
        words.y + words.size * 0.36,
        words.text,
        color=ink.fill,
        fontsize=words.size * 72 / DPI,
        fontfamily=FONT,
        fontweight="bold" if words.bold else "normal",
        ha=side,
        va="baseline",
        zorder=order,
        parse_math=False,
        path_effects=[withStroke(linewidth=2.2, foreground=ink.halo)] if ink.halo else None,
    )


def _path(curve: Curve) -> Path:
    points, codes = [], []
    for command, *numbers in curve.path:
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        points += pairs
        codes += [CODES[command]] * len(pairs)
    return Path(points, codes)
