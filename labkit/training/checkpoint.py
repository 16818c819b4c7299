"""Checkpoints that survive a crash at any moment: written aside, verified, then renamed."""

import io
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

VERSIONS = {"format": 1, "torch": str(torch.__version__)}


def non_finite(tree: Any, path: str = "") -> list[str]:
    """Paths, such as ``model.encoder.fc_mu.bias``, of the leaves that hold NaN or Inf."""
    if isinstance(tree, dict | list | tuple):
        branches = tree.items() if isinstance(tree, dict) else enumerate(tree)
        parts = (non_finite(branch, f"{path}.{key}".lstrip(".")) for key, branch in branches)
        return [bad for part in parts for bad in part]
    number = isinstance(tree, float | torch.Tensor)
    return [path] if number and not torch.as_tensor(tree).isfinite().all() else []


def save_checkpoint(
    path: str | Path, state: dict, boundary: Callable[[str], None] = lambda name: None
) -> None:
    """Replace the checkpoint at `path`, or leave the one that is there as it was.

    Args:
        path: the file; `path` + ".tmp" is written first.
        state: nested dicts and lists of tensors, numbers, strings and None; finite.
        boundary: called with the name of each boundary that is passed; tests crash there.

    Raises:
        ValueError: a leaf is NaN or Inf.
        OSError: other bytes were read back (from the page cache, so this is no test of the disk).
    """
    if bad := non_finite(state):
        raise ValueError(f"{path} not written: expected finite numbers; NaN or Inf in {bad}")
    path, aside, content = Path(path), Path(f"{path}.tmp"), io.BytesIO()
    torch.save({"versions": VERSIONS, "state": state}, content)
    boundary("before write")
    with open(aside, "wb") as file:
        file.write(content.getbuffer())
        file.flush()
        boundary("after write")
        os.fsync(file.fileno())
    boundary("after fsync")
    if aside.read_bytes() != content.getvalue() or not load_checkpoint(aside):
        raise OSError(f"{aside}: read back other bytes than were written; {path} is as it was")
    boundary("before rename")
    os.replace(aside, path)
    boundary("after rename")
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)  # makes the rename durable
    os.close(folder)
    boundary("after directory fsync")


def load_checkpoint(path: str | Path) -> dict:
    """Return the state; no code of the file is run.

    Raises:
        ValueError: the file is cut, holds something else or has another format.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as wrong:
        raise ValueError(f"{path}: expected a whole checkpoint; {wrong}") from wrong
    if not isinstance(content, dict) or content.keys() != {"versions", "state"}:
        raise ValueError(f"{path}: expected a whole checkpoint; got a {type(content).__name__}")
    versions, state = content["versions"], content["state"]
    if versions["format"] != VERSIONS["format"]:
        raise ValueError(f"{path}: expected format {VERSIONS['format']}; got {versions['format']}")
    if versions != VERSIONS:
        warnings.warn(f"{path}: saved by torch {versions['torch']}; bits may differ", stacklevel=2)
    return state
