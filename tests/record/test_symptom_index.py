"""The index by symptom: the same in the README and in the first notebook, and all of it exists."""

import re
from pathlib import Path

from labkit.record.books import FIRST, NOTEBOOKS, prose, symptoms

ROOT = Path(NOTEBOOKS).parent


def rows_of_readme() -> list[tuple[str, str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    index = text[text.index("## What do you see?") : text.index("## The failures")]
    return re.findall(r"^\| (.+?) \| \[(\w+)\]\(notebooks/\2\.ipynb\) \|$", index, re.MULTILINE)


def test_both_indexes_say_the_same():
    assert rows_of_readme()[1:] == symptoms()
    assert all(f"| {symptom} | `{where}` |" in prose(FIRST) for symptom, where in symptoms())


def test_where_the_source_is_not_there_the_notebook_is_read(monkeypatch, tmp_path):
    (tmp_path / f"{FIRST}.ipynb").write_bytes((NOTEBOOKS / f"{FIRST}.ipynb").read_bytes())
    there = symptoms()
    monkeypatch.setattr("labkit.record.books.NOTEBOOKS", tmp_path)
    assert symptoms() == there


def test_each_row_leads_to_a_notebook():
    for symptom, where in rows_of_readme():
        assert (NOTEBOOKS / f"{where}.ipynb").exists(), symptom


def test_a_symptom_stands_once():
    told = [symptom for symptom, _ in rows_of_readme()]
    assert len(told) == len(set(told)) > 20
