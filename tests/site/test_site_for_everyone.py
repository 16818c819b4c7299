"""WCAG 2.2 AA on the pages without a kernel: read, tabbed through, enlarged, without motion."""

from itertools import pairwise
from pathlib import Path

import pytest
from audit import moving, tabbed, unnamed, unreadable

SHOTS = Path(__file__).resolve().parents[2] / "screenshots"
PAGES = ("22_exploding_logvar", "index")


@pytest.fixture(scope="module")
def look(site, browser):
    """Opens a page in a window of some width; more of the browser's settings by name."""
    contexts = []

    def open_page(stem, width=1280, height=800, **settings):
        contexts.append(
            browser.new_context(viewport={"width": width, "height": height}, **settings)
        )
        page = contexts[-1].new_page()
        page.goto((site / f"{stem}.html").as_uri())
        if page.locator("[data-exhibit]").count():
            page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("stem", PAGES)
def test_every_word_can_be_read(look, stem):
    page = look(stem, reduced_motion="reduce")  # or a badge is met between two colours
    page.evaluate("document.querySelectorAll('details').forEach((it) => { it.open = true; })")
    assert unreadable(page.locator("body")) == []
    for slider in page.get_by_role("slider").all():
        for _ in range(8):
            slider.press("ArrowRight")
            assert (
                unreadable(page.locator(f"[data-exhibit]:has(#{slider.get_attribute('id')})")) == []
            )


@pytest.mark.parametrize("stem", PAGES)
def test_every_control_and_picture_has_a_name(look, stem):
    page = look(stem)
    assert unnamed(page) == []
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.title()


def test_headings_leave_out_no_level(look):
    levels = (
        look(PAGES[0])
        .locator("h1, h2, h3, h4")
        .evaluate_all("(all) => all.map((it) => Number(it.tagName[1]))")
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_a_notebook_is_worked_through_with_keys_alone(look):
    page = look(PAGES[0], reduced_motion="reduce")
    focused = tabbed(page, 80)
    assert len(focused) < 80  # no trap: the end of the page is reached
    assert [it["name"] for it in focused if not it["visible"] or not it["onScreen"]] == []
    tags = [it["tag"] for it in focused]
    assert tags[0] == "a"  # to the text, past the links
    assert tags.count("input") >= 4  # three sliders, one choice
    assert tags.count("svg") == 1  # the map
    assert tags.count("summary") == page.locator("summary").count()


def test_a_fold_opens_with_a_key_and_the_first_link_skips_to_the_text(look):
    page = look(PAGES[0])
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "text"
    while page.evaluate("document.activeElement.tagName") != "SUMMARY":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1


@pytest.mark.parametrize(("zoom", "width"), [("200", 640), ("400", 320)])
@pytest.mark.parametrize("stem", PAGES)
def test_nothing_is_cut_off_when_the_page_is_enlarged(look, stem, zoom, width):
    page = look(stem, width, 400)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / f"site_{stem}_{zoom}.png", full_page=True)


def test_nothing_slides_for_whoever_asked_for_no_motion(look):
    assert moving(look(PAGES[0], reduced_motion="no-preference")) > 0
    assert moving(look(PAGES[0], reduced_motion="reduce")) == 0
