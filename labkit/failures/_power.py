"""A power cut: the next file that is written gets half of its bytes, and the process is gone."""

import builtins
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch


class PowerCut(BaseException):
    """The process is gone; no ``except Exception`` may save it."""


class _Dying:
    """A file that takes half of what is written to it."""

    def __init__(self, path: Any):
        self.path = path

    def write(self, data: Any) -> None:
        """Write half, and die."""
        with _open(self.path, "wb") as file:
            file.write(bytes(data)[: len(bytes(data)) // 2])
        raise PowerCut

    def __enter__(self) -> "_Dying":
        return self

    def __exit__(self, *_: Any) -> None:
        pass


_open, _save = builtins.open, torch.save


@contextmanager
def power_cut() -> Iterator[None]:
    """Nothing that is written in this block is written whole.

    Raises:
        PowerCut: in the middle of the first write; else at the end of the block.
    """

    def dying_open(path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        return _Dying(path) if "w" in mode else _open(path, mode, *rest, **named)

    def dying_save(content: Any, where: Any, *rest: Any, **named: Any) -> None:
        memory = io.BytesIO()
        _save(content, memory, *rest, **named)
        file = _Dying(where) if isinstance(where, str | Path) else where
        file.write(memory.getvalue())

    with (
        patch("builtins.open", dying_open),
        patch("io.open", dying_open),
        patch("torch.save", dying_save),
    ):
        yield
    raise PowerCut
