"""Every notebook with a panel: run all in a real JupyterLab, break it with the mouse, repair it."""

from pathlib import Path

import pytest
from hand import Hand
from real_lab import ERRORS, open_notebook, run_all

ROOT = Path(__file__).resolve().parents[2]
WITH_PANEL = sorted(
    p.name for p in (ROOT / "notebooks").glob("*.ipynb") if "Panel(" in p.read_text()
)


@pytest.mark.parametrize("name", WITH_PANEL)
def test_break_and_repair(lab, new_page, name):
    page = new_page()
    open_notebook(page, lab, name, name.removesuffix(".ipynb"))
    run_all(page)
    assert page.evaluate(ERRORS) == []
    hand = Hand(page)
    hand.press("healthy")
    hand.sees("healthy")
    slider = hand.panel.get_by_role("slider").first
    dial = slider.get_attribute("data-knob")
    share = slider.evaluate("(it) => it.value / it.max")
    hand.press("break")
    broken = slider.evaluate("(it) => it.value / it.max")
    hand.press("healthy")
    hand.sees("healthy")
    hand.drag(dial, share, broken)
    hand.panel.locator('[data-status]:not([data-status="healthy"])').wait_for()
    hand.shot(f"notebook_{name.removesuffix('.ipynb')}")
    hand.press("repair")
    hand.sees("healthy")
    assert page.errors == []
