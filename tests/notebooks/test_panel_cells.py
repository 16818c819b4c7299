"""A panel and the code below it: what runs later must not turn the panel's own bench."""

import re
from pathlib import Path

import pytest

TEXTS = sorted((Path(__file__).resolve().parents[2] / "notebooks" / "text").glob("[0-9]*.py"))
PANEL = re.compile(r"^Panel\((\w+)\)$", re.MULTILINE)


def turned_after_its_panel(text):
    """Lines of later code cells that move the bench of a panel."""
    cells = re.split(r"^(?=# %%)", text, flags=re.MULTILINE)
    shown, found = set(), []
    for cell in cells:
        if cell.startswith("# %% [markdown]"):
            continue
        moved = "|".join(shown)
        found += re.findall(rf"^.*\b(?:{moved})\.turn\(.*$", cell, re.MULTILINE) if shown else []
        shown |= set(PANEL.findall(cell))
    return found


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_after_run_all_a_panel_shows_the_setting_of_its_cell(path):
    assert turned_after_its_panel(path.read_text(encoding="utf-8")) == []


def test_a_turn_below_the_panel_is_seen():
    text = '# %%\nbench.turn("a")\nPanel(bench)\n\n# %%\nassert bench.turn("b").verdict == "inf"\n'
    assert turned_after_its_panel(text) == ['assert bench.turn("b").verdict == "inf"']
    assert turned_after_its_panel(text.replace("assert bench", "assert spare")) == []
