"""What the notebooks ask: choices, the answer's letter, hints, symptoms. No second copy of them."""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
FIRST = "00_start_here"
FOLD = r"<details>\s*<summary>({})</summary>\s*(.*?)\s*</details>"


@dataclass(frozen=True)
class Questions:
    """Of one notebook; empty where the notebook is not there, as in an installed package."""

    choices: tuple[str, ...] = ()
    key: str = ""
    hints: tuple[str, ...] = ()


@lru_cache(maxsize=64)
def books() -> dict[str, str]:
    """Name of each notebook that has an exercise, and its number, in order."""
    paths = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    return {path.stem[3:]: path.stem[:2] for path in paths if 10 <= int(path.stem[:2]) < 99}


@lru_cache(maxsize=64)
def questions_of(name: str) -> Questions:
    """What the notebook of a failure asks."""
    return questions(prose(f"{books().get(name, '00')}_{name}"))


def questions(text: str) -> Questions:
    """Read the questions out of a notebook's markdown."""
    answer = re.search(FOLD.format("Answer"), text, re.DOTALL)
    before = text[: answer.start()] if answer else ""
    choices = re.findall(r"^[-*] \*\*([A-H])\*\*", before, re.MULTILINE)
    key = re.match(r"\*\*([A-H])\b", answer[2]) if answer else None
    hints = re.findall(FOLD.format(r"Hint \d+"), text, re.DOTALL)
    return Questions(tuple(choices), key[1] if key else "", tuple(_line(h) for _, h in hints))


def symptoms() -> list[tuple[str, str]]:
    """The index by symptom of the first notebook: the symptom, and the notebook to go to.

    Its source is read where it is there: a build of that very notebook would else see the old one.
    """
    source = NOTEBOOKS / "text" / f"{FIRST}.py"
    text = source.read_text(encoding="utf-8") if source.exists() else prose(FIRST)
    return re.findall(r"^(?:# )?\| (.+?) \| `(\d\d_\w+)` \|$", text, re.MULTILINE)


def prose(stem: str) -> str:
    """The markdown of a notebook; "" if it is not there."""
    try:
        cells = json.loads((NOTEBOOKS / f"{stem}.ipynb").read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return ""
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def _line(text: str) -> str:
    return " ".join(text.split())
