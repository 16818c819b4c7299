"""The failure map in a real JupyterLab: click, keys, ring, and nothing that blinks."""

import pytest
from hand import Hand, run_code
from playwright.sync_api import expect


@pytest.fixture
def hand(opened):
    it = Hand(opened)
    it.rest()  # a move that still waits would come after the turn, and undo it
    run_code(opened, "bench.turn('healthy', repair=None); None")
    it.sees("healthy")
    yield it
    assert opened.errors == []


@pytest.fixture
def chart(hand):
    chart = hand.panel.locator(".lk-map")
    chart.scroll_into_view_if_needed()
    return chart


def ring(hand):
    return hand.panel.locator(".lk-stand").get_attribute("transform")


def spot(hand, shift, dtype):
    """A cell's place on the page, in pixels."""
    x, y = map(float, run_code(
        hand.page,
        "print(*next((c['x'], c['y']) for c in panel.chart['cells'] "
        f"if c['set'] == dict(shift={shift}, dtype={dtype!r})))",
    ).split())  # fmt: skip
    return hand.page.evaluate(
        """([x, y]) => {
          const map = document.querySelector('.lk-panel .lk-map');
          const spot = new DOMPoint(x, y).matrixTransform(map.getScreenCTM());
          return [spot.x, spot.y];
        }""",
        [x, y],
    )


def test_a_click_sets_the_bench_there(hand, chart):
    before = ring(hand)
    hand.page.mouse.click(*spot(hand, 100.0, "float32"))
    hand.sees("inf")
    expect(hand.slider("shift")).to_have_attribute("aria-valuetext", "100.0 nats")
    assert ring(hand) != before
    expect(hand.panel.locator(".lk-told")).to_contain_text("shift 100 nats, dtype float32: inf.")
    hand.shot("8_map")


def test_the_keys_walk_and_enter_sets(hand, chart):
    hand.page.keyboard.press("Tab")  # a key first, as for whoever has no mouse
    chart.focus()
    hand.page.keyboard.press("ArrowRight")
    hand.page.keyboard.press("ArrowUp")
    hand.page.keyboard.press("ArrowUp")
    told = hand.panel.locator(".lk-told")
    expect(told).to_have_text("shift 20 nats, dtype float16: inf.")
    expect(told).to_have_attribute("aria-live", "polite")
    hand.sees("healthy")  # walking turns nothing
    hand.page.keyboard.press("Enter")
    hand.sees("inf")
    expect(hand.code).to_have_text("Bench('exploding_logvar').turn(shift=20.0, dtype='float16')")
    expect(chart).to_be_focused()


def test_the_ring_follows_the_slider_and_the_map_stays(hand, chart):
    chart.evaluate("(node) => { window.first = node.querySelector('rect'); }")
    before = ring(hand)
    hand.drag("shift", 40 / 240, 140 / 240)
    hand.sees("inf", "nan")
    assert ring(hand) != before
    assert chart.evaluate("(node) => window.first === node.querySelector('rect')")


def test_another_guard_shows_another_map(hand, chart):
    assert chart.get_attribute("aria-label") == "Map: shift and dtype"
    words = chart.get_attribute("aria-description")
    assert "dtype float32: healthy" in words
    hand.panel.get_by_role("radiogroup", name="guard").get_by_label("clamp").check()
    expect(hand.code).to_contain_text("guard='clamp'")
    assert "dead from" in chart.get_attribute("aria-description")


def test_a_failure_without_a_map_has_no_empty_box(opened, hand):
    expect(opened.locator(".lk-chart").nth(1)).to_be_hidden()


def test_a_run_is_walked_operation_by_operation(spread):
    hand = Hand(spread)
    hand.press("break")
    hand.slider("step").press("Home")
    hand.slider("step").press("ArrowRight")
    hand.slider("op").press("Home")
    expect(hand.badge).to_contain_text("step 1, counts: 1 of 12240 bad")
    hand.slider("op").press("ArrowRight")
    hand.slider("op").press("ArrowRight")
    expect(hand.badge).to_contain_text("step 1, input_layer: 128 of 2048 bad, 1 of 16 cells")
    board = hand.panel.locator(".lk-map")
    board.scroll_into_view_if_needed()
    hand.shot("9_board")
    board.focus()
    for key in ("ArrowDown", "ArrowRight", "Enter"):
        hand.page.keyboard.press(key)
    expect(hand.code).to_contain_text("turn(op=3.0, kind='nan')")  # step 2 is where it begins
    expect(hand.badge).to_contain_text("step 2, fc_mu: 128 of 128 bad, 16 of 16 cells")
    assert spread.errors == []
