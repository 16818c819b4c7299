"""From a fresh clone to an open lab, with the standard library alone.

These modules run before anything is installed, so they import nothing but the standard library.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Stop(Exception):
    """The work cannot go on; the message says why and what to do."""


def say(text: str) -> None:
    """Print one line that a reader can tell from the output of pip, pytest and Jupyter."""
    for line in text.splitlines():
        print(f"lab: {line}", flush=True)
