"""Colours, marks and words of health: one table for the page, its dark theme and matplotlib.

The hues are Okabe and Ito's, which the colour-blind can tell apart; text on each of them has a
contrast of 4.5 or more. A colour never speaks alone: every sick state has a mark and a word too.
"""

from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Ink:
    """How a role is drawn. An empty colour is none."""

    fill: str = ""
    stroke: str = ""
    width: float = 1.0
    dash: tuple[float, ...] = ()
    halo: str = ""  # around words, so that a line behind them does not strike them out


@dataclass(frozen=True, slots=True)
class State:
    """A state of health: its mark, the word that a reader sees, and the hue that it is drawn in."""

    mark: str
    word: str
    hue: str


STATES = {
    "healthy": State("✓", "healthy", "green"),
    "ok": State("", "", "green"),
    "untrained": State("·", "untrained", "grey"),
    "data": State("", "", "grey"),
    "empty": State("", "empty", "grey"),
    "nan": State("✕", "NaN", "red"),
    "inf": State("▲", "∞", "amber"),
    "severed": State("✂", "severed", "white"),
    "none": State("✂", "none", "white"),
    "dead": State("○", "dead", "blue"),
    "zero": State("○", "0", "blue"),
    "vanishing": State("▽", "vanishing", "blue"),
    "frozen": State("=", "frozen", "blue"),
    "not updated": State("=", "still", "blue"),
    "exploding": State("△", "exploding", "amber"),
    "wrong": State("≠", "wrong", "amber"),
    "memory": State("▮", "memory", "amber"),
    "deadlock": State("⇄", "deadlock", "amber"),
    "lost": State("?", "lost", "amber"),
    "error": State("!", "error", "red"),
}

HUES = {  # name: (fill, text on it, line in it) on a light page, then on a dark one
    "green": (("#d9eee6", "#00402f", "#007a57"), ("#0d4a3a", "#c9f0e2", "#35b58e")),
    "grey": (("#eceff1", "#37474f", "#78868e"), ("#343c41", "#d7dee2", "#8d9aa1")),
    "red": (("#a84600", "#ffffff", "#a84600"), ("#f08a4b", "#1c0a00", "#f08a4b")),
    "amber": (("#f7c54f", "#3a2600", "#946200"), ("#e6a817", "#1d1300", "#e6a817")),
    "blue": (("#c3e1f5", "#00344f", "#0072b2"), ("#1f5f8b", "#ffffff", "#6ab6e6")),
    "white": (("#ffffff", "#37474f", "#5c6a72"), ("#111111", "#d7dee2", "#9aa7ae")),
}

PAGE = {  # paper, ink, muted ink, faint line, tint of a group
    False: ("#ffffff", "#1f2529", "#5c6a72", "#d5dbde", "#f4f6f7"),
    True: ("#111111", "#e6eaec", "#a3afb6", "#3b4348", "#1c2124"),
}


@lru_cache(maxsize=2)
def inks(dark: bool = False) -> dict[str, Ink]:
    """Every role with its ink. Roles of states are ``nan``, ``on nan`` and ``line nan``."""
    paper, ink, muted, faint, tint = PAGE[dark]
    ceiling = HUES["red"][dark][2]
    floor = HUES["blue"][dark][2]
    table = {
        "paper": Ink(fill=paper),
        "ink": Ink(fill=ink),
        "muted": Ink(fill=muted),
        "tint": Ink(fill=tint),
        "title": Ink(fill=ink, halo=paper),
        "label": Ink(fill=muted, halo=paper),
        "label tint": Ink(fill=muted, halo=tint),
        "edge": Ink(stroke=muted, width=1.0),
        "edge data": Ink(stroke=muted, width=0.8, dash=(1, 3)),
        "edge cut": Ink(stroke=muted, width=1.4, dash=(4, 4)),
        "axis": Ink(stroke=muted, width=1.0),
        "grid": Ink(stroke=faint, width=1.0),
        "born": Ink(stroke=ink, width=2.4),
        "hidden": Ink(),
        "ceiling": Ink(stroke=ceiling, width=1.4),
        "floor": Ink(stroke=floor, width=1.4),
        "ceiling word": Ink(fill=ceiling),
        "floor word": Ink(fill=floor),
        "room": Ink(fill=ceiling + "38"),
        "above": Ink(fill=ceiling + "14"),
        "below": Ink(fill=floor + "14"),
        "stand": Ink(stroke=ink, width=2.4),
        "stand halo": Ink(stroke=paper, width=6.0),
        "cursor": Ink(stroke=ink, width=1.6, dash=(3, 2)),
        "born line": Ink(stroke=ink, width=1.2, dash=(2, 2)),
    }
    for name, state in STATES.items():
        fill, text, stroke = HUES[state.hue][dark]
        outline = stroke if state.hue == "white" else ""
        table[name] = Ink(fill=fill, stroke=outline, dash=(3, 2) if outline else ())
        table[f"on {name}"] = Ink(fill=text)
        table[f"line {name}"] = Ink(stroke=stroke, width=1.6)
        table[f"mark {name}"] = Ink(fill=stroke)
        table[f"onmark {name}"] = Ink(fill="#ffffff" if not dark else "#111111")
    return table
