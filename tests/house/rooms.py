"""Which room of labkit may import what. Arrows run one way."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LABKIT = Path(__file__).resolve().parents[2] / "labkit"


@dataclass(frozen=True)
class Room:
    """What a room's files may import besides the standard library and the room itself."""

    packages: frozenset[str] = frozenset()
    rooms: frozenset[str] = frozenset()
    lazily: frozenset[str] = frozenset()  # rooms that it may import inside a function


def room(packages: str = "", rooms: str = "", lazily: str = "") -> Room:
    return Room(*(frozenset(words.split()) for words in (packages, rooms, lazily)))


EVERY = (
    "bench board cells check checklist claims compare draw failures fold guide kernels maps "
    "models news panel probes progress record table training watch whodunit"
)
ROOMS = {
    "probes": room("torch"),
    "cells": room("torch numpy h5py"),  # h5py: the script that rebuilds the packaged counts
    "kernels": room("torch numpy"),
    "models": room("torch numpy", "cells kernels"),
    "training": room("torch numpy", "cells kernels models"),
    "news": room(),
    "bench": room("", "probes news", lazily="failures maps"),  # loads a failure by its name
    "board": room(),
    "maps": room("", "bench"),
    "compare": room("", "bench probes"),
    "failures": room("torch numpy", "cells kernels models training probes guide watch bench board"),
    "claims": room("torch numpy", "cells kernels models training probes bench"),
    "check": room("torch", "failures bench probes news"),
    "record": room("", "bench news"),
    "draw": room("matplotlib torchviz graphviz numpy torch PIL", "probes bench maps board"),
    "panel": room("ipywidgets anywidget traitlets IPython", "draw probes bench failures fold maps"),
    "fold": room(),
    "whodunit": room("torch", "guide news probes"),
    "progress": room("tqdm"),
    "guide": room("torch", "cells models training probes"),
    "checklist": room("torch", "probes guide"),
    "watch": room("torch numpy", "probes"),
    "": room(
        "", "bench check checklist compare fold probes record watch", lazily=EVERY
    ),  # what a notebook imports
}


def room_of(path: Path) -> str:
    """The room that a file of labkit belongs to: a folder, or a module by itself."""
    first = path.relative_to(LABKIT).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def wrong_imports(source: str, name: str) -> list[str]:
    """What a file imports against the rules of its room.

    Args:
        source: the text of the file.
        name: of its room.
    """
    if name not in ROOMS:
        return [f"labkit/{name}: a new room; say in {Path(__file__).name} what it may import"]
    return [
        f"line {line}: {'labkit.' if own else ''}{target} is not for {name or 'labkit itself'}"
        for line, own, target, late in _imports(ast.parse(source))
        if not _allowed(name, own, target, late)
    ]


def _allowed(name: str, own: bool, target: str, late: bool) -> bool:
    rules = ROOMS[name]
    if own:
        return target == name or target in rules.rooms or (late and target in rules.lazily)
    return target in sys.stdlib_module_names or target in rules.packages


def _imports(tree: ast.AST) -> Iterator[tuple[int, bool, str, bool]]:
    """Line, whether it is labkit's own, room or package, and whether it is inside a function."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    late = {id(n) for f in ast.walk(tree) if isinstance(f, functions) for n in ast.walk(f)}
    for node in ast.walk(tree):
        for module in _modules(node):
            top, _, rest = module.partition(".")
            own = top == "labkit"
            yield node.lineno, own, rest.partition(".")[0] if own else top, id(node) in late


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    if node.level:  # relative: never out of the room
        return []
    if node.module == "labkit":
        return [f"labkit.{alias.name}" for alias in node.names]
    return [node.module or ""]
