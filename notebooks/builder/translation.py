"""A second language beside the first: translated prose, and the English notebook's own code.

A translation, ``notebooks/text/zh/NN_slug.py``, holds prose alone: one markdown cell for each of
the English ones, in the same order. Code and outputs are taken from the executed English notebook,
so there is no second copy that could differ, and nothing is run twice. Each cell carries the stamp
of the English prose that it translates, so a change of the English is seen and told to the reader.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jupytext
from nbformat import NotebookNode, from_dict

LANGUAGES = {  # what is said at the head of a notebook, and where its prose is old
    "zh": (
        "*译自英文版 [{stem}](../{stem}.ipynb)，代码和输出与其相同。*",
        "*（本段的英文原文在翻译之后有改动，请对照英文版。）*",
    )
}
KEPT = {  # what a translation has as often as the English, and what that is called
    r"^#{1,4} ": "headings",
    r"<details>": "folds",
    r"\$\$?[^$]+\$\$?": "formulas",
    r"^\d+\. ": "numbered sources",
    r"^\|": "rows of tables",
}
SAME = {  # what stands in both, if not as often: nothing is lost, nothing is made up
    r"(?<!`)`[^`\n]+`(?!`)": "code",
    r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\w)": "numbers",
}


@dataclass(frozen=True)
class Translated:
    """A notebook in another language, what is wrong with it, and which of its cells are old."""

    notebook: NotebookNode
    faults: tuple[str, ...]
    old: tuple[str, ...]


def stamp(source: str) -> str:
    """A short name for a cell's prose: another one as soon as a letter changes."""
    return hashlib.sha256(source.encode()).hexdigest()[:8]


def translate(english: NotebookNode, text: Path) -> Translated:
    """Put translated prose around the code and the outputs of the English notebook.

    Args:
        english: executed, as it is stored.
        text: the translation; its folder's name is its language.
    """
    language = text.parent.name
    head, aged = (line.format(stem=text.stem) for line in LANGUAGES[language])
    prose = jupytext.reads(text.read_text(encoding="utf-8"), fmt="py:percent").cells
    notebook = from_dict(english)
    notebook.metadata.labkit["language"] = language
    places = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    faults = list(_shape(prose, places))
    old = []
    for number, (cell, own) in enumerate(zip(places, prose, strict=False), start=1):
        said, told = stamp(cell.source), own.metadata.get("of", "")
        faults += [] if said != told else _differences(number, cell.source, own.source)
        if said != told:
            old.append(f"prose {number}: says of={told or 'nothing'}, the English is now {said}")
        notes = [head] * (number == 1) + [aged] * (said != told)
        cell.id = stamp(f"{language}\n{number}\n{own.source}")
        cell.source = "\n\n".join([own.source, *notes])
    return Translated(notebook, tuple(faults), tuple(old))


def _shape(prose: list[NotebookNode], places: list[NotebookNode]) -> Iterator[str]:
    for number, cell in enumerate(prose, start=1):
        if cell.cell_type != "markdown":
            yield f"cell {number} is {cell.cell_type}; a translation holds prose alone"
    if len(prose) != len(places):
        yield f"{len(prose)} cells of prose; the English notebook has {len(places)}"


def _differences(number: int, english: str, own: str) -> Iterator[str]:
    """What one of them has and the other has not."""
    for pattern, name in KEPT.items():
        counts = [len(re.findall(pattern, words, re.M)) for words in (english, own)]
        if counts[0] != counts[1]:
            yield f"prose {number}: {counts[1]} {name}; the English has {counts[0]}"
    for pattern, name in SAME.items():
        first, second = (set(re.findall(pattern, words, re.M)) for words in (english, own))
        if first != second:
            odd = ", ".join(sorted(first ^ second))
            yield f"prose {number}: {name} in one language only: {odd}"
