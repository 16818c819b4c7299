"""A picture as plain data: boxes, lines and words in pixels, each with a role instead of a colour.

One scene has two painters, `svg` for the page and `paint` for matplotlib, so that the live
picture and the one in a saved notebook cannot differ. An item with a `key` may change its role or
its words while its place stays: that is what a slider move sends to the page.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

from matplotlib.font_manager import FontProperties, findfont, get_font

FONT = "DejaVu Sans"  # comes with matplotlib, so every machine draws the same picture
SIZE = 11.0  # of every word and number, in pixels
SMALL = 9.5  # of marks under a word


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle. `op` is the op that it stands for: the page can point at it."""

    x: float
    y: float
    width: float
    height: float
    role: str
    round: float = 0.0
    key: str = ""
    op: int | None = None


@dataclass(frozen=True, slots=True)
class Words:
    """Text on one line; `y` is its middle."""

    x: float
    y: float
    text: str
    role: str = "ink"
    anchor: str = "start"  # start, middle, end
    size: float = SIZE
    bold: bool = False
    key: str = ""


@dataclass(frozen=True, slots=True)
class Curve:
    """A path of ("M" | "L" | "C", x, y, ...) commands."""

    path: tuple[tuple, ...]
    role: str
    key: str = ""
    closed: bool = False


Item = Box | Words | Curve


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture of a size in pixels, y downwards, and the words that replace it."""

    width: float
    height: float
    items: tuple[Item, ...]
    alt: str = ""

    def live(self) -> dict[str, list[str]]:
        """What may change while the places stay: role and words of each item with a key."""
        return {i.key: [i.role, getattr(i, "text", "")] for i in self.items if i.key}

    def moved(self, dx: float, dy: float) -> "Scene":
        """The same picture, further right and down."""
        return replace(self, items=tuple(_moved(item, dx, dy) for item in self.items))


def line(role: str, *points: tuple[float, float], key: str = "") -> Curve:
    """Straight lines through some points."""
    (x, y), *rest = points
    return Curve((("M", x, y), *(("L", x, y) for x, y in rest)), role, key)


@lru_cache(maxsize=4096)
def width_of(text: str, size: float = SIZE, bold: bool = False) -> float:
    """Width of a text in pixels."""
    font = get_font(findfont(FontProperties(family=FONT, weight="bold" if bold else "normal")))
    font.set_size(100, 72)
    font.set_text(text, 0.0)
    return font.get_width_height()[0] / 64 * size / 100


def shortened(text: str, width: float, size: float = SIZE) -> str:
    """The text, or as much of its beginning as fits, with an ellipsis."""
    if width_of(text, size) <= width:
        return text
    while text and width_of(text + "…", size) > width:
        text = text[:-1]
    return text + "…" if text else ""


def _moved(item: Item, dx: float, dy: float) -> Item:
    if isinstance(item, Curve):
        path = tuple(
            (c, *(v + (dy if i % 2 else dx) for i, v in enumerate(numbers)))
            for c, *numbers in item.path
        )
        return replace(item, path=path)
    return replace(item, x=item.x + dx, y=item.y + dy)
