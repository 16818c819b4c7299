"""The panel in a real JupyterLab: mouse, keys, buttons, code from another cell, and no flicker."""

import re

import pytest
from hand import Hand, run_code
from playwright.sync_api import expect

WATCH = """() => {
  const parts = ['.lk-badge', '.lk-graph', '.lk-timeline', '.lk-gradients'];
  const nodes = parts.map((part) => document.querySelector(`.lk-panel ${part}`));
  window.seen = [];
  const look = () => {
    window.seen.push(nodes.map((node) => {
      const box = node.getBoundingClientRect();
      return [Math.round(box.x), Math.round(box.y), Math.round(box.width), Math.round(box.height),
              node.isConnected && node.childElementCount > 0];
    }));
    if (window.seen !== null) window.watch = requestAnimationFrame(look);
  };
  look();
  return true;
}"""
TOUCH = 6  # px: the padding above and below the words of a mark
READABLE = 0.69  # of a letter's size: 0.7 as the page says, less rounding
SEEN = "() => { cancelAnimationFrame(window.watch); return window.seen; }"


@pytest.fixture
def hand(opened):
    it = Hand(opened)
    it.rest()  # a move that still waits would come after the turn, and undo it
    run_code(opened, "bench.turn('healthy', repair=None); None")
    it.sees("healthy")
    yield it
    assert opened.errors == []


def settings(hand):
    return run_code(
        hand.page, "print(bench.settings.shift, bench.settings.dtype, bench.settings.guard)"
    )


def test_the_badge_says_the_very_words_of_the_reading(hand):
    words = run_code(hand.page, "print(bench.reading)")
    assert hand.badge.inner_text().split("\n")[-1].endswith(words)
    hand.shot("1_healthy")


def test_drag_until_it_breaks_then_repair(hand):
    hand.drag("shift", 40 / 240, 140 / 240)
    hand.sees("inf", "nan")
    hand.shot("2_broken_by_hand")
    hand.press("repair")
    hand.sees("healthy")
    expect(hand.panel.get_by_role("button", name="repair")).to_have_attribute(
        "aria-pressed", "true"
    )
    hand.shot("3_repaired")


def test_the_keys_land_on_exact_values(hand):
    slider = hand.slider("shift")
    for key, value in [
        ("End", "200.0"),
        ("ArrowLeft", "199.5"),
        ("Home", "-40.0"),
        ("ArrowRight", "-39.5"),
    ]:
        slider.press(key)
        expect(slider).to_have_attribute("aria-valuetext", f"{value} nats")
        expect(hand.code).to_contain_text(f"shift={value})")  # the kernel's answer
        assert settings(hand).split()[0] == value
    slider.press("PageUp")  # a tenth of the range
    expect(hand.code).to_contain_text("shift=-15.5)")


def test_a_step_of_a_tenth_lands_on_tenths(opened):
    toy = Hand(opened, number=1)
    slider = toy.slider("scale")
    slider.press("Home")
    for _ in range(7):
        slider.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "1.7")
    expect(toy.code).to_have_text("Bench('toy_bench').turn(scale=1.7)")  # not 1.7000000000000002
    slider.press("End")
    expect(toy.code).to_have_text("Bench('toy_bench').turn(scale=3.0)")


def test_buttons_turn_to_the_cases(hand):
    hand.press("break")
    hand.sees("inf")
    assert settings(hand) == "90.0 float32 none"
    hand.press("healthy")
    hand.sees("healthy")
    assert settings(hand) == "0.0 float32 none"


def test_a_mark_below_the_track_takes_the_handle_to_its_case(hand):
    hand.panel.get_by_text("broken", exact=True).click()
    hand.sees("inf")
    assert settings(hand).split()[0] == "90.0"


def test_a_choice_is_a_radio_group_with_a_name(hand):
    hand.press("break")
    hand.panel.get_by_role("radiogroup", name="guard").get_by_label("straight-through").check()
    hand.sees("healthy")
    hand.panel.get_by_role("radiogroup", name="dtype").get_by_label("float16", exact=True).check()
    expect(hand.code).to_contain_text("dtype='float16'")


def test_code_in_another_cell_moves_the_hand(hand):
    run_code(hand.page, "bench.turn('broken', dtype='float64'); None")
    expect(hand.slider("shift")).to_have_attribute("aria-valuetext", "90.0 nats")
    expect(hand.panel.get_by_label("float64")).to_be_checked()
    assert hand.badge.inner_text().endswith(run_code(hand.page, "print(bench.reading)"))


def test_a_value_off_the_grid_is_shown_as_it_is(hand):
    run_code(hand.page, "bench.turn(shift=88.7228); None")
    expect(hand.slider("shift")).to_have_attribute("aria-valuetext", "88.7228 nats")


def test_an_error_in_a_turn_is_shown_in_the_badge(hand):
    run_code(hand.page, "kept = bench.failure.run; bench.failure.run = lambda *a, **k: 1 / 0")
    try:
        hand.press("break")
        hand.sees("error")
        expect(hand.badge).to_contain_text("ZeroDivisionError: division by zero")
        hand.shot("4_error")
    finally:
        run_code(hand.page, "bench.failure.run = kept")
    hand.press("healthy")
    hand.sees("healthy")


def test_nothing_blinks_or_jumps_while_the_hand_drags(hand):
    hand.page.evaluate(WATCH)
    hand.drag("shift", 40 / 240, 230 / 240, moves=60)
    hand.sees("nan")
    frames = hand.page.evaluate(SEEN)
    assert len(frames) > 20
    assert {tuple(map(tuple, frame)) for frame in frames} == {tuple(map(tuple, frames[0]))}
    assert all(part[4] for part in frames[0])


def test_the_last_value_wins(hand):
    hand.drag("shift", 40 / 240, 1.0, moves=100)
    hand.drag("shift", 1.0, 0.25, moves=100)
    expect(hand.slider("shift")).to_have_attribute("aria-valuetext", "20.0 nats")
    hand.page.wait_for_function(
        "document.querySelector('.lk-panel code').textContent.includes('shift=20.0')"
    )
    assert settings(hand).split()[0] == "20.0"
    words = run_code(hand.page, "print(bench.reading)")
    expect(hand.badge).to_contain_text(words)


def test_the_badge_is_busy_until_the_kernel_has_answered_the_hand(hand):
    slow = "import time; kept = bench.failure.run; "
    slow += "bench.failure.run = lambda *a, **k: time.sleep(0.5) or kept(*a, **k)"
    run_code(hand.page, slow)
    try:
        hand.slider("shift").press("End")
        hand.slider("shift").press("ArrowLeft")  # waits until the first is answered
        expect(hand.badge).to_have_attribute("aria-busy", "true")
        hand.rest()
        expect(hand.code).to_contain_text("shift=199.5)")
    finally:
        run_code(hand.page, "bench.failure.run = kept")


def test_pointing_at_an_op_tells_about_it(hand):
    hand.press("break")
    hand.sees("inf")
    op = run_code(hand.page, "print(bench.reading.report.culprit.position)")
    hand.panel.locator(f'.lk-graph [data-op="{op}"]').hover()
    expect(hand.panel.locator(".lk-detail p").first).to_have_text(
        re.compile(r"^exp, likelihood.py:\d+, in ")
    )
    expect(hand.panel.locator(".lk-ring")).to_have_count(1)
    hand.shot("5_pointing")
    hand.slider("shift").hover()
    expect(hand.panel.locator(".lk-detail p").first).to_contain_text("born")


def test_the_graph_is_walked_and_zoomed_with_keys(hand):
    graph = hand.panel.locator(".lk-graph")
    whole = graph.get_attribute("viewBox")
    graph.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        hand.page.keyboard.press(key)
        hand.page.wait_for_timeout(100)
    expect(hand.panel.locator(".lk-ring")).to_have_count(1)
    hand.page.keyboard.press("+")
    assert graph.get_attribute("viewBox") != whole
    hand.page.keyboard.press("Shift+ArrowRight")
    hand.page.keyboard.press("0")
    assert graph.get_attribute("viewBox") == whole
    hand.page.keyboard.press("Escape")
    expect(hand.panel.locator(".lk-ring")).to_have_count(0)


def test_copy_gives_the_line_of_code(hand):
    hand.press("break")
    hand.sees("inf")
    hand.panel.get_by_role("button", name="copy").click()
    copied = hand.page.evaluate("() => navigator.clipboard.readText()")
    assert copied == "Bench('exploding_logvar').turn(shift=90.0)"
    assert run_code(hand.page, f"print({copied})") == run_code(hand.page, "print(bench.reading)")


def test_the_dark_theme_has_its_own_colours(hand):
    paper = "() => getComputedStyle(document.querySelector('.lk-panel .lk-muted')).fill"
    light = hand.page.evaluate(paper)
    change = (
        "(theme) => jupyterapp.commands.execute('apputils:change-theme', {theme}).then(() => true)"
    )
    hand.page.evaluate(change, "JupyterLab Dark")
    hand.page.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
    hand.press("break")
    hand.sees("inf")
    assert hand.page.evaluate(paper) != light
    hand.shot("6_dark")
    hand.page.evaluate(change, "JupyterLab Light")
    hand.page.wait_for_function("document.body.dataset.jpThemeLight === 'true'")


def test_a_narrow_page_puts_everything_in_one_column(hand):
    hand.page.set_viewport_size({"width": 700, "height": 1000})
    graph, timeline = (
        hand.panel.locator(part).bounding_box() for part in (".lk-graph", ".lk-timeline")
    )
    assert timeline["y"] + timeline["height"] <= graph["y"]
    hand.shot("7_narrow")
    hand.page.set_viewport_size({"width": 1280, "height": 800})


def test_a_graph_of_many_layers_stays_large_enough_to_read(deep):
    hand = Hand(deep)
    hand.press("break")
    hand.unwell()
    graph, more = hand.panel.locator(".lk-graph"), hand.panel.locator(".lk-more")
    expect(more).to_be_visible()
    scale = "(svg) => svg.getScreenCTM().a"
    assert graph.evaluate(scale) >= READABLE
    above = graph.evaluate("(svg) => svg.viewBox.baseVal.y")
    box = graph.bounding_box()
    deep.mouse.move(box["x"] + 60, box["y"] + 300)
    deep.mouse.down()
    deep.mouse.move(box["x"] + 60, box["y"] + 100, steps=5)
    deep.mouse.up()
    moved = graph.evaluate("(svg) => svg.viewBox.baseVal.y") - above
    assert moved * graph.evaluate(scale) == pytest.approx(200, abs=2), "it goes with the hand"
    hand.panel.get_by_role("button", name="show all").click()
    expect(more).to_be_hidden()
    assert graph.evaluate(scale) < READABLE


def test_no_two_marks_of_a_slider_overlap(deep):
    for number in (0, 1):
        boxes = Hand(deep, number).panel.evaluate(
            """(panel) => [...panel.querySelectorAll('.lk-marks')].map((row) =>
              [...row.children].map((mark) => {
                const { left, right, top, bottom } = mark.getBoundingClientRect();
                return [left, right, top, bottom];
              }))"""
        )
        for marks in boxes:
            for i, (left, right, top, bottom) in enumerate(marks):
                for other in marks[:i]:
                    aside = left >= other[1] or right <= other[0]
                    assert aside or top >= other[3] - TOUCH or bottom <= other[2] + TOUCH, marks
