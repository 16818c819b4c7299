"""The pages without a kernel: what is in them, and what a hand and a key do to them."""

import re
from dataclasses import asdict

import build_site
import nbformat
import pytest
from playwright.sync_api import expect

from labkit import Bench

PAGE = "22_exploding_logvar.html"
RESOURCE = r"<(?:script|link|img|iframe|source|object)\b[^>]*?(?:src|href)=[\"']?([^\"'> ]+)"
SIZE = {"width": 1280, "height": 800}
CASES, MAP, FIRST_STRIP, CLAMPED = range(4)  # exhibits of that page, from the top


@pytest.fixture(scope="module")
def tab(site, browser):
    """The page of exploding_logvar; every address that it asked for is kept in ``tab.asked``."""
    context = browser.new_context(viewport=SIZE, reduced_motion="reduce")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.asked, page.errors = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    yield page
    context.close()
    assert page.errors == []


@pytest.fixture
def opened(tab, site):
    return go(tab, site)


def go(tab, site, hash=""):
    tab.goto("about:blank")
    tab.goto(f"{(site / PAGE).as_uri()}{hash}")
    tab.wait_for_selector("html[data-ready]")
    return tab


def exhibit(tab, number):
    return tab.locator(f'[data-exhibit="{number}"]')


def reading(line):
    """What the bench says to a copied line."""
    return str(eval(line, {"Bench": Bench}))


def says(part):
    """The words of a badge; its mark is for the eye."""
    return part.get_by_role("status").locator(".lk-badge-text").inner_text()


def test_pages_are_small_and_ask_for_nothing_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert {page.name for page in pages} >= {PAGE, "13_item.html", "index.html"}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert len(text.encode()) <= build_site.MOST
        assert re.findall(RESOURCE, text)
        for address in re.findall(RESOURCE, text):
            assert address == "data:," or (page.parent / address).exists(), address
    for asset in (site / "assets").iterdir():
        assert not re.search(r"@import|url\(|fetch\(|import\(", asset.read_text(encoding="utf-8"))


def test_a_page_that_is_too_large_is_refused(site, monkeypatch):
    monkeypatch.setattr(build_site, "MOST", 20_000)
    with pytest.raises(ValueError, match=r"13_item.html: \d+ bytes; expected at most 20000"):
        build_site._told(site / "13_item.html")


def test_what_is_folded_stays_folded_and_formulas_are_drawn(opened):
    stored = nbformat.read(build_site.HERE / "22_exploding_logvar.ipynb", as_version=4)
    folded = str(stored).count("<details>")
    assert opened.locator("details").count() == folded >= 4
    assert opened.locator("details[open]").count() == 0
    assert not opened.get_by_text("Its logarithm is 88.72").is_visible()
    assert opened.locator("math").count() >= 5
    assert "$$" not in opened.locator("main").inner_text()


def test_the_guides_own_words_say_that_they_are_chinese(opened):
    marked = opened.locator("blockquote").first.locator("[lang]")
    told = marked.evaluate_all("(all) => all.map((it) => [it.lang, it.textContent])")
    assert told == [["zh-CN", "过大"], ["zh-CN", "溢出"]]


def test_every_picture_has_words(opened):
    pictures = opened.locator("main img")
    assert pictures.count() >= 4
    for alt in pictures.evaluate_all("(all) => all.map((it) => it.alt)"):
        assert len(alt) > 20


def test_a_key_moves_the_strip_and_the_copied_line_gives_the_same_words(opened):
    strip = exhibit(opened, FIRST_STRIP)
    slider = strip.get_by_role("slider", name="shift")
    slider.press("End")
    expect(slider).to_have_attribute("aria-valuetext", "185 nats")
    expect(strip.get_by_role("status")).to_have_attribute("data-status", "nan")
    slider.press("ArrowLeft")
    slider.press("ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", "90 nats")
    strip.get_by_role("button", name="copy this line").press("Enter")
    line = opened.evaluate("navigator.clipboard.readText()")
    assert line == "Bench('exploding_logvar').turn(shift=90.0)"
    assert reading(line) == says(strip)
    outlined = strip.locator(".lk-flow .lk-born")
    assert outlined.count() == 1  # the culprit
    slider.press("Home")
    assert outlined.count() == 0


def test_every_stop_of_every_slider_moves_all_pictures(opened):
    for number in (CASES, FIRST_STRIP, CLAMPED):
        part = exhibit(opened, number)
        parts = [part.locator(f".lk-{name}") for name in ("flow", "timeline", "gradients")]
        before = [it.inner_html() for it in parts]
        part.get_by_role("slider").press("End")
        assert all(it.inner_html() != was for it, was in zip(parts[:2], before[:2], strict=True))


def test_a_map_is_walked_with_keys_and_chosen_with_a_click(opened):
    part = exhibit(opened, MAP)
    chart = part.get_by_role("application")
    chart.focus()
    scrolled = opened.evaluate("scrollY")
    for key in [*["ArrowDown"] * 2, *["ArrowRight"] * 8, "ArrowUp", "ArrowDown"]:
        opened.keyboard.press(key)
    expect(part.locator(".lk-told")).to_contain_text("shift 120 nats, dtype float32.")
    assert opened.evaluate("scrollY") == scrolled  # the keys are the map's
    expect(part.get_by_role("status")).to_have_attribute("data-status", "inf")
    assert reading(part.locator("code").inner_text()) == says(part)
    part.get_by_label("clamp").check()
    expect(part.get_by_role("status")).to_have_attribute("data-status", "dead")
    assert reading(part.locator("code").inner_text()) == says(part)
    box = chart.bounding_box()
    chart.click(position={"x": box["width"] * 0.12, "y": box["height"] * 0.2})
    expect(part.locator(".lk-told")).to_contain_text("shift -40 nats, dtype float16.")


@pytest.mark.parametrize(
    ("hash", "numbers", "code"),
    [
        ("#shift=86&guard=none", [FIRST_STRIP], "shift=86.0"),
        ("#shift=60&guard=clamp&dtype=float32", [MAP, CLAMPED], "shift=60.0, guard='clamp'"),
        ("#guard=none&shift=100.0&dtype=float16", [MAP], "shift=100.0, dtype='float16'"),
    ],
)
def test_a_link_restores_its_setting_wherever_it_can(tab, site, hash, numbers, code):
    go(tab, site, hash)
    for number in numbers:
        line = exhibit(tab, number).locator("code")
        expect(line).to_have_text(f"Bench('exploding_logvar').turn({code})")
    expect(exhibit(tab, numbers[0])).to_be_in_viewport()


@pytest.mark.parametrize("number", [CASES, MAP, FIRST_STRIP, CLAMPED])
def test_the_link_of_an_exhibit_leads_back_to_it(opened, site, number):
    part = exhibit(opened, number)
    control = part.get_by_role("application") if number == MAP else part.get_by_role("slider")
    control.press("ArrowRight")
    words, line = says(part), part.locator("code").inner_text()
    address = part.get_by_role("link").get_attribute("href")
    again = exhibit(go(opened, site, address), number)
    expect(again.locator("code")).to_have_text(line)
    assert says(again) == words
    expect(again).to_be_in_viewport()


def test_a_wrong_link_changes_nothing(tab, site):
    for hash in ("#shift=87.123", "#why", "#knob=none"):
        assert says(exhibit(go(tab, site, hash), FIRST_STRIP)).startswith("healthy")


def test_nothing_was_asked_of_a_network(tab):
    assert [address for address in tab.asked if not re.match(r"file:|data:|about:", address)] == []
    assert len(tab.asked) > 10


def test_the_still_picture_stays_where_no_script_runs(site, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / PAGE).as_uri())
    stills = page.locator(".output_png img")
    assert all(stills.nth(i).is_visible() for i in range(stills.count()))
    context.close()


def test_the_index_leads_by_symptom_and_by_part(tab, site):
    tab.goto((site / "index.html").as_uri())
    start = (build_site.HERE / "text" / "00_start_here.py").read_text(encoding="utf-8")
    rows = re.findall(r"^# \|.*\| `(?:13_item|22_exploding_logvar)` \|$", start, re.M)
    assert tab.locator("tbody tr").count() == len(rows) >= 2
    tab.get_by_role("link", name="item").first.click()
    tab.wait_for_selector("html[data-ready]")
    slider = exhibit(tab, 1).get_by_role("slider", name="total")
    slider.press("End")
    line = exhibit(tab, 1).locator("code").inner_text()
    assert reading(line) == says(exhibit(tab, 1))


def test_the_chinese_page_moves_too_and_leads_back(tab, site):
    tab.goto((site / PAGE).as_uri())
    tab.get_by_role("link", name="中文版").click()
    tab.wait_for_selector("html[data-ready]")
    assert tab.locator("html").get_attribute("lang") == "zh-CN"
    strip = exhibit(tab, FIRST_STRIP)
    slider, button = strip.get_by_role("slider"), strip.get_by_role("button", name="复制这一行")
    spoken = [part.evaluate("(it) => it.closest('[lang]').lang") for part in (slider, button)]
    assert spoken == ["en", "zh-CN"]
    slider.press("End")
    button.click()
    assert reading(tab.evaluate("navigator.clipboard.readText()")) == says(strip)
    assert tab.locator("main img").count() == len(list((site / "pictures" / PAGE[:-5]).iterdir()))
    tab.get_by_role("link", name="全部笔记本").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("消失的梯度与爆炸的数值")
    tab.get_by_role("link", name="English").click()
    expect(tab.locator("html")).to_have_attribute("lang", "en")


def test_every_link_leads_somewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        links = [link.partition("#")[0] for link in re.findall(r'<a [^>]*?href="([^"]*)"', text)]
        assert links
        for link in links:
            target = page.parent / (link or page.name)
            assert link.startswith("https://") or target.exists(), (page.name, link)


def test_a_copied_line_is_what_the_bench_says():
    from site_builder.exhibit import line_of

    bench = Bench("exploding_logvar")
    bench.turn(shift=86.0, guard="clamp")
    assert line_of(bench.failure, bench.settings) == bench.code()
    assert asdict(bench.settings)["shift"] == 86.0
