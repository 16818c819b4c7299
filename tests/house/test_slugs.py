"""One slug names a failure's module, its notebook and its row in the README."""

import re
from pathlib import Path

import pytest
from builder.text import read_text

from labkit import failures

ROOT = Path(__file__).resolve().parents[2]
TEXTS = {path.stem[3:]: path for path in (ROOT / "notebooks" / "text").glob("[0-9][0-9]_*.py")}
pytestmark = pytest.mark.skipif(
    not (ROOT / "notebooks" / "text").exists(), reason="no notebook is written yet"
)
each_failure = pytest.mark.parametrize("name", failures.names())


def rows(readme: str) -> list[str]:
    """The rows of the README's table of failures; none while there is no such table."""
    table = re.search(r"^\|[^\n]*failure[^\n]*minutes[^\n]*\|\n\|[-| :]+\|\n((?:\|.*\n?)*)", readme,
                      re.IGNORECASE | re.MULTILINE)  # fmt: skip
    return table[1].splitlines() if table else []


def kind(path: Path) -> str:
    return read_text(path).metadata.labkit.get("kind", "")


@each_failure
def test_a_failure_has_its_notebook(name):
    assert name in TEXTS
    assert kind(TEXTS[name]) in ("failure", "tool")  # a tool needs something broken to work on


def test_a_failure_notebook_has_its_failure():
    written = {slug for slug, path in TEXTS.items() if kind(path) == "failure"}
    assert written <= set(failures.names())


def test_numbers_are_used_once():
    numbers = [path.stem[:2] for path in TEXTS.values()]
    assert len(numbers) == len(set(numbers))


@each_failure
def test_a_failure_has_its_row(name):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = rows(readme)
    number = TEXTS[name].stem[:2]
    assert not listed or [row for row in listed if row.startswith(f"| {number} |") and name in row]


def test_the_table_is_found():
    readme = "| # | failure | minutes |\n|---|---|---|\n| 22 | a | 3 |\n| 23 | b | 4 |\n\nMore.\n"
    assert rows(readme) == ["| 22 | a | 3 |", "| 23 | b | 4 |"]
    assert rows("# No table\n") == []
