"""The index by symptom: the same in the README and in the first notebook, and all of it exists."""

import re
from pathlib import Path

from labkit.record.books import NOTEBOOKS, prose, symptoms

ROOT = Path(NOTEBOOKS).parent


def rows_of_readme() -> list[tuple[str, str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    index = text[text.index("## What do you see?") : text.index("## The failures")]
    return re.findall(r"^\| (.+?) \| \[(\w+)\]\(notebooks/\2\.ipynb\) \|$", index, re.MULTILINE)


def test_both_indexes_say_the_same():
    assert rows_of_readme()[1:] == symptoms(prose("00_start_here"))


def test_each_row_leads_to_a_notebook():
    for symptom, where in rows_of_readme():
        assert (NOTEBOOKS / f"{where}.ipynb").exists(), symptom


def test_a_symptom_stands_once():
    told = [symptom for symptom, _ in rows_of_readme()]
    assert len(told) == len(set(told)) > 20
