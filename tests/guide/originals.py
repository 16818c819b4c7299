"""The guide's published tools, run as they are quoted in ``blocks/``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

BLOCKS = Path(__file__).parent / "blocks"
ELIDED = {  # the guide's "...", and what stands there when the block runs
    "4.4 train_with_crash_recovery": ("loader, ...)", "loader, n_epochs, train_step)"),
}


def block(name: str) -> str:
    """The text of one code block, its elided arguments supplied."""
    text = (BLOCKS / f"{name}.txt").read_text(encoding="utf-8")
    return text.replace(*ELIDED[name]) if name in ELIDED else text


def run(name: str, **supplied: Any) -> Mapping[str, Any]:
    """Execute one block; its names afterwards.

    Args:
        name: of a file in ``blocks/``, without its ending.
        **supplied: what the block uses and does not define.
    """
    names = {"torch": torch, "F": F, **supplied}
    exec(compile(block(name), f"the guide, {name}", "exec"), names)
    return names


def original(tool: str, **supplied: Any) -> Any:
    """One of the guide's functions, by its name."""
    texts = ((path.stem, path.read_text(encoding="utf-8")) for path in sorted(BLOCKS.glob("*.txt")))
    name = next(stem for stem, text in texts if f"def {tool}(" in text)
    return run(name, **supplied)[tool]
