"""The learner's own copies of the notebooks: made once, never overwritten.

A small manifest beside the copies keeps, for each, the hash of the original that it came from.
So a newer original can be told from an edit by the learner.
"""

import hashlib
import json
import shutil
from pathlib import Path

from bootstrap import ROOT, say

ORIGINALS = ROOT / "notebooks"
MY_LAB = ROOT / "my_lab"
MANIFEST = ".originals.json"
NEWER = """\
{name} has a newer version. Your copy stays as it is.
To get the new one: rename or delete {copy}, then run the same command again."""


def refresh(originals: Path = ORIGINALS, copies: Path = MY_LAB) -> dict[str, str]:
    """Copy every notebook that the learner does not have yet, translated ones included.

    Args:
        originals: The folder of the originals, `*.ipynb`.
        copies: The learner's folder; made if it is not there.

    Returns:
        For each notebook `new`, `same` (its original is the one the copy came from, whatever the
        learner has changed since) or `newer` (the original has changed; the copy is untouched).
    """
    copies.mkdir(parents=True, exist_ok=True)
    manifest = _read(copies / MANIFEST)
    states = {}
    for original in [*sorted(originals.glob("*.ipynb")), *sorted(originals.glob("zh/*.ipynb"))]:
        name = original.relative_to(originals).as_posix()
        states[name] = _refresh_one(original, copies / name, name, manifest)
    (copies / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return states


def _refresh_one(original: Path, copy: Path, name: str, manifest: dict[str, str]) -> str:
    now = _hash(original)
    if not copy.exists():
        _copy(original, copy)
        manifest[name] = now
        return "new"
    # Without an entry the copy itself is the only witness of what it came from.
    came_from = manifest.setdefault(name, _hash(copy))
    return "same" if came_from == now else "newer"


def tell(states: dict[str, str], folder: str = MY_LAB.name) -> None:
    """Say what was copied and what has a newer version."""
    new = [name for name, state in states.items() if state == "new"]
    if new:
        say(f"Copied into {folder}/, yours to change: {', '.join(new)}.")
    for name, state in states.items():
        if state == "newer":
            say(NEWER.format(name=name, copy=f"{folder}/{name}"))


def _copy(original: Path, copy: Path) -> None:
    # An interrupted copy must not pass for the learner's own file.
    copy.parent.mkdir(exist_ok=True)  # a language has a folder of its own
    part = copy.with_name(f".{copy.name}.part")
    shutil.copyfile(original, part)
    part.replace(copy)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path) -> dict[str, str]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
