"""Which line of the user's code runs, and inside which module."""

import linecache
import os
import re
import sys
import sysconfig
from types import CodeType, FrameType

import torch

_LIBRARY, _USER, _MODULE = 0, 1, 2
_SKIPPED = tuple(
    os.path.join(os.path.realpath(path), "")
    for path in (os.path.dirname(torch.__file__), os.path.dirname(__file__))
)
_STANDARD = os.path.join(os.path.realpath(sysconfig.get_path("stdlib")), "")
_HELPERS = re.compile(r"[/\\](einops|jaxtyping|opt_einsum|typeguard|beartype|torchtyping)[/\\]")
_APPLY = torch.autograd.Function.apply.__func__.__code__
_KINDS: dict[CodeType, int] = {torch.nn.Module._wrapped_call_impl.__code__: _MODULE}


class Place:
    """A line of code and the innermost module around it."""

    __slots__ = ("code", "line", "module", "root")

    def __init__(self, code: CodeType | None, line: int, module, root):
        self.code, self.line, self.module, self.root = code, line, module, root

    @classmethod
    def of(cls, event) -> "Place":
        return cls(event.code, event.line, event.module, None)


def applying(frame: FrameType | None, last_frame: int) -> tuple[type, Place] | None:
    """The custom Function in whose forward this frame runs, and the line that applies it."""
    while frame is not None and id(frame) != last_frame:
        if frame.f_code is _APPLY:
            return frame.f_locals["cls"], locate(frame, last_frame)
        frame = frame.f_back
    return None


def wrapping(reader: Place) -> Place | None:
    """The line above this one, in the same function, that makes a Parameter; if there is one."""
    first = reader.code.co_firstlineno if reader.code is not None else reader.line + 1
    for line in range(reader.line, first - 1, -1):
        if "Parameter(" in linecache.getline(reader.code.co_filename, line):
            return Place(reader.code, line, reader.module, reader.root)
    return None


NOWHERE = Place(None, 0, None, None)


def locate(frame: FrameType | None, last: int = 0) -> Place:
    """Walk outwards to the first line that is not torch's, ours or Python's own.

    Args:
        frame: where to begin.
        last: id of the outermost frame that still counts; 0 walks to the end.

    Returns:
        The line with the innermost module that runs it.
    """
    code, line, module = None, 0, None
    while frame is not None:
        this = frame.f_code
        kind = _KINDS.get(this)
        if kind is None:
            kind = _kind(this)
        if kind == _USER and code is None:
            code, line = this, frame.f_lineno
        elif kind == _MODULE and module is None:
            module = frame.f_locals["self"]
        if (code is not None and module is not None) or id(frame) == last:
            break
        frame = frame.f_back
    return Place(code, line, module, None)


def user_frame(frame: FrameType | None) -> FrameType | None:
    """The frame object of that line: for looking up what the user calls a tensor."""
    while frame is not None and _kind(frame.f_code) != _USER:
        frame = frame.f_back
    return frame


def user_frames(frame: FrameType | None, last: int = 0) -> list[FrameType]:
    """Every frame of the user's code, innermost first."""
    found = []
    while frame is not None and id(frame) != last:
        if _kind(frame.f_code) == _USER:
            found.append(frame)
        frame = frame.f_back
    return found


def modules_around(frame: FrameType | None, last: int = 0) -> list:
    """Every module whose forward runs, innermost first, each with the frame that called it."""
    found = []
    while frame is not None:
        if _KINDS.get(frame.f_code) == _MODULE:
            found.append((frame.f_locals["self"], frame.f_back))
        if id(frame) == last:
            break
        frame = frame.f_back
    return found


def _kind(code: CodeType) -> int:
    kind = _KINDS.get(code)
    return _KINDS.setdefault(code, _classify(code)) if kind is None else kind


def _classify(code: CodeType) -> int:
    path = code.co_filename
    if path.startswith("<frozen"):
        return _LIBRARY
    path = os.path.realpath(path) if os.path.isabs(path) else path
    if path.startswith(_SKIPPED) or _HELPERS.search(path):
        return _LIBRARY
    standard = path.startswith(_STANDARD) and f"{os.sep}site-packages{os.sep}" not in path
    return _LIBRARY if standard else _USER


def file_name(path: str) -> str:
    """``vae.py`` for a file, ``cell 5`` for a notebook's cell, so that outputs are stable."""
    number = _cell(path)
    return f"cell {number}" if number is not None else os.path.basename(path)


def _cell(path: str) -> int | str | None:
    if match := re.match(r"<ipython-input-(\d+)-", path):
        return match[1]
    shell = sys.modules.get("IPython")
    shell = shell.get_ipython() if shell else None
    cells = getattr(getattr(shell, "compile", None), "_filename_map", {})
    return cells.get(path)
