"""A scene as SVG text, and the table of inks as CSS: what the page shows."""

from html import escape

from labkit.draw.scene import SIZE, Box, Curve, Item, Scene, Words
from labkit.draw.theme import STATES, Ink, inks

TEXT_STYLE = "\u2702", "\u2744"  # marks that some systems would draw as an emoji


def svg(scene: Scene) -> str:
    """The scene's items as the inside of an ``<svg>`` element."""
    return "".join(_element(item) for item in scene.items)


def css(dark: bool = False, scope: str = "") -> str:
    """One CSS rule for each role, and one for the badge of each state."""
    table = inks(dark)
    rules = [f"{scope}.{role_class(role)}{{{_rule(ink)}}}" for role, ink in table.items()]
    rules += [
        f'{scope}.lk-badge[data-status="{state}"]'
        f"{{background:{table[state].fill};color:{table[f'on {state}'].fill}}}"
        for state in STATES
    ]
    return "\n".join(rules)


def role_class(role: str) -> str:
    """The CSS class of a role."""
    return "lk-" + role.replace(" ", "-")


def plain(text: str) -> str:
    """Marks in the text's own style and colour, never as an emoji."""
    return "".join(letter + "\ufe0e" if letter in TEXT_STYLE else letter for letter in text)


def _rule(ink: Ink) -> str:
    dash = f"stroke-dasharray:{' '.join(f'{d:g}' for d in ink.dash)};" if ink.dash else ""
    if ink.halo:
        return f"fill:{ink.fill};stroke:{ink.halo};stroke-width:3px;paint-order:stroke;"
    stroke = f"stroke:{ink.stroke};stroke-width:{ink.width:g};{dash}" if ink.stroke else ""
    return f"fill:{ink.fill or 'none'};{stroke or 'stroke:none;'}"


def _element(item: Item) -> str:
    key = f' data-key="{item.key}"' if item.key else ""
    head = f'class="{role_class(item.role)}"{key}'
    match item:
        case Box():
            return _rect(item, head)
        case Words():
            return _text(item, head)
        case Curve():
            return f'<path {head} d="{_path(item)}"/>'


def _rect(box: Box, head: str) -> str:
    corner = f' rx="{box.round:g}"' if box.round else ""
    op = f' data-op="{box.op}"' if box.op is not None else ""
    place = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    return f"<rect {head}{op} {place}{corner}/>"


def _text(words: Words, head: str) -> str:
    anchor = f' text-anchor="{words.anchor}"' if words.anchor != "start" else ""
    size = f' font-size="{words.size:g}"' if words.size != SIZE else ""
    bold = ' font-weight="600"' if words.bold else ""
    place = f'x="{words.x:.1f}" y="{words.y + words.size * 0.36:.1f}"'
    return f"<text {head} {place}{anchor}{size}{bold}>{escape(plain(words.text))}</text>"


def _path(curve: Curve) -> str:
    steps = (c + " ".join(f"{n:.1f}" for n in numbers) for c, *numbers in curve.path)
    return "".join(steps) + ("Z" if curve.closed else "")
