"""Every notebook in a real JupyterLab: opened, run whole, its panel broken and repaired by hand."""

from pathlib import Path

import pytest
from hand import FAILURES, Hand
from real_lab import ERRORS, open_notebook, run_all

STORED = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
WITH_PANEL = {path.name for path in STORED if "Panel(" in path.read_text(encoding="utf-8")}


def test_every_failure_has_its_panel_in_a_notebook():
    assert set(FAILURES) <= {name.removesuffix(".ipynb")[3:] for name in WITH_PANEL}


@pytest.mark.parametrize("name", [path.name for path in STORED])
def test_runs_and_its_panel_breaks_and_is_repaired(lab, new_page, name):
    page = new_page()
    open_notebook(page, lab, name, name.removesuffix(".ipynb"))
    run_all(page)
    assert page.evaluate(ERRORS) == []
    if name in WITH_PANEL:
        break_and_repair(Hand(page), name)
    assert page.errors == []
    page.context.close()
    lab.shut_down(name)


def break_and_repair(hand, name):
    """Break it by the button and by hand, repair it by the button."""
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
