"""WCAG 2.2 AA on the live panel: contrast in both themes, names, keys alone, focus, no motion."""

import pytest
from audit import moving, tabbed, unnamed, unreadable
from hand import Hand, run_code

CASES = ("healthy", "break", "repair")
THEME = "(theme) => jupyterapp.commands.execute('apputils:change-theme', {theme}).then(() => true)"
IS_LIGHT = "(light) => document.body.dataset.jpThemeLight === light"


@pytest.fixture
def hand(opened):
    it = Hand(opened)
    opened.emulate_media(reduced_motion="reduce")  # or a badge is met between two colours
    run_code(opened, "bench.turn('healthy', repair=None); None")
    it.sees("healthy")
    yield it
    opened.emulate_media(reduced_motion="no-preference")
    theme(opened, "Light")
    assert opened.errors == []


def theme(page, name):
    page.evaluate(THEME, f"JupyterLab {name}")
    page.wait_for_function(IS_LIGHT, arg=str(name == "Light").lower())


@pytest.mark.parametrize("name", ["Light", "Dark"])
def test_every_word_can_be_read(hand, name):
    theme(hand.page, name)
    hand.panel.locator("details").evaluate_all("(all) => all.forEach((it) => { it.open = true; })")
    for case in CASES:
        hand.press(case)
        hand.sees("inf") if case == "break" else hand.sees("healthy")
        hand.panel.locator(".lk-graph").hover()  # so that the buttons of the graph are shown
        assert unreadable(hand.panel) == []


def test_every_control_and_picture_has_a_name(hand):
    assert unnamed(hand.page, ".lk-panel") == []


def test_the_panel_is_worked_through_with_keys_alone(hand):
    hand.page.keyboard.press("Tab")
    hand.slider("shift").focus()
    hand.page.keyboard.press("Shift+Tab")
    focused = tabbed(hand.page, 30)
    first = next(i for i, it in enumerate(focused) if it["name"].startswith("shift"))
    inside = focused[first : first + 9]
    assert [it["name"] for it in inside if not it["visible"] or not it["onScreen"]] == []
    names = " ".join(it["name"] for it in focused)
    for wanted in ("healthy", "break", "repair", "copy", "Map", "card"):
        assert wanted in names


def test_nothing_slides_for_whoever_asked_for_no_motion(hand):
    inside = [moving(hand.page, ".lk-panel")]
    hand.page.emulate_media(reduced_motion="no-preference")
    inside.append(moving(hand.page, ".lk-panel"))
    assert inside[0] == 0 < inside[1]
