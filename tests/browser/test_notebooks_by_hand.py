"""Notebooks with a panel, run whole in a real JupyterLab: break it with the mouse, repair it.

By default the two that a newcomer opens first; the panels of all failure modes are turned by hand
in `test_every_failure_by_hand.py`, and nbval runs every notebook. LAB_EVERY_NOTEBOOK=1 takes all.
"""

import os
from pathlib import Path

import pytest
from hand import Hand
from real_lab import ERRORS, open_notebook, run_all

ROOT = Path(__file__).resolve().parents[2]
FIRST = ("00_start_here.ipynb", "22_exploding_logvar.ipynb")
WITH_PANEL = [
    path.name
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
    if "Panel(" in path.read_text(encoding="utf-8")
    and (path.name in FIRST or os.environ.get("LAB_EVERY_NOTEBOOK"))
]


def test_the_first_notebooks_have_a_panel():
    assert set(FIRST) <= set(WITH_PANEL)


@pytest.mark.parametrize("name", WITH_PANEL)
def test_break_and_repair(lab, new_page, name):
    page = new_page()
    open_notebook(page, lab, name, name.removesuffix(".ipynb"))
    run_all(page)
    assert page.evaluate(ERRORS) == []
    hand = Hand(page)
    hand.press("break")
    broken = hand.controls()
    hand.unwell()
    hand.press("healthy")
    hand.sees("healthy")
    hand.move_to(broken)
    hand.unwell()
    hand.shot(f"notebook_{name.removesuffix('.ipynb')}")
    hand.press("repair")
    hand.sees("healthy")
    assert page.errors == []
