"""The parts of the site that need neither a built page nor a browser."""

import re

import nbformat
import pytest
from build_site import HERE
from builder.text import read_text
from site_builder.capture import captured
from site_builder.exhibit import strip_exhibit
from site_builder.index import parts, symptoms
from site_builder.pages import Page, read_page
from site_builder.prose import Exporter, in_its_language, mathml
from site_builder.words import INDEX, WORDS

from labkit import Bench

TEXTS = sorted((HERE / "text").glob("[0-9][0-9]_*.py"))
PAGES = {text.stem: f"{text.stem}.html" for text in TEXTS}


EXPORTER = Exporter(PAGES)


def html(*sources: str) -> str:
    cells = [nbformat.v4.new_markdown_cell(source) for source in sources]
    return EXPORTER.from_notebook_node(nbformat.v4.new_notebook(cells=cells))[0]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)
def test_every_formula_can_be_drawn(text):
    prose = [cell.source for cell in read_text(text).cells if cell.cell_type == "markdown"]
    shown = re.sub(r"<(code|pre)>.*?</\1>", "", html(*prose), flags=re.S)
    assert "$" not in re.sub(r"<[^>]*>", "", shown)


def test_a_formula_that_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match=r"MathML has no \\unheardof, in x \\unheardof"):
        mathml(r"x \unheardof", "inline")
    assert "‖" in mathml(r"\Big\|a\Big\|", "block")


def test_names_of_notebooks_lead_to_their_pages():
    assert '<a href="13_item.html"><code>13_item</code></a>' in html("see `13_item`")
    assert '<a href="13_item.html#why">' in html("[x](13_item.ipynb#why)")
    assert "<a" not in html("see `14_item`")


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)
def test_no_chinese_word_of_an_english_page_is_without_its_language(text):
    page = html(*[cell.source for cell in read_text(text).cells if cell.cell_type == "markdown"])
    unmarked = re.sub('<span lang="zh-CN">[^<]*</span>', "", in_its_language(page, "en"))
    assert re.findall(r"[\u3400-\u9fff]+", unmarked) == []


@pytest.mark.parametrize(
    ("written", "marked"),
    [
        ("z ← 切断 … 无法传到encoder", 'z ← <span lang="zh-CN">切断 … 无法传到</span>encoder'),
        ("原则1: 多层防护（Depth）", '<span lang="zh-CN">原则1: 多层防护（</span>Depth）'),
        ("切断 &lt; 梯度", '<span lang="zh-CN">切断</span> &lt; <span lang="zh-CN">梯度</span>'),
        ('<a title="梯度">gradient</a>', '<a title="梯度">gradient</a>'),
    ],
)
def test_a_run_of_chinese_ends_where_english_begins(written, marked):
    assert in_its_language(written, "en") == marked


def test_names_of_knobs_on_a_chinese_page_say_that_they_are_english():
    page = in_its_language(html("把 *shift* 设为 *15* ，然后*转动*"), "zh")
    assert '把 <em lang="en">shift</em> 设为 <em>15</em> ，然后<em>转动</em>' in page


def test_a_strip_that_the_copied_line_would_not_give_is_refused():
    bench = Bench("exploding_logvar")
    bench.turn("broken", repair=lambda logvar: logvar.clamp(-1, 1))
    with pytest.raises(ValueError, match="Sweep without a repair of your own"):
        strip_exhibit(bench.sweep("shift", (0, 90)), "shift")


def test_a_notebook_without_anything_to_move_is_not_run(tmp_path):
    cell = nbformat.v4.new_code_cell("raise SystemError('this was run')")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "still.ipynb")
    assert captured(tmp_path / "still.ipynb") == []


def test_a_notebook_whose_code_fails_is_named(tmp_path):
    cell = nbformat.v4.new_code_cell("spilt milk\nPanel(bench)")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "sick.ipynb")
    with pytest.raises(RuntimeError, match=r"sick.ipynb: its code failed.(?s:.*)spilt milk"):
        captured(tmp_path / "sick.ipynb")


def test_every_notebook_opens_with_what_the_index_shows():
    for text in TEXTS:
        page = read_page(HERE / f"{text.stem}.ipynb")
        assert page.title != page.stem
        assert page.symptom
        assert page.minutes.isdecimal()
        assert parts([page], INDEX["en"]["parts"])


def test_a_symptom_goes_before_a_nickname():
    assert read_page(HERE / "22_exploding_logvar.ipynb").symptom.startswith("the loss is inf from")
    assert read_page(HERE / "00_start_here.ipynb").symptom == "A real model on the bench."


def test_symptoms_come_from_the_start_notebook():
    table = "| what you see | go to |\n|---|---|\n| it leaks | `13_item` |\n| it is | `14_no` |\n"
    item = Page("13_item", "item", "", "15")
    assert symptoms(table, [item], [item]) == [("it leaks", "13_item.html", "item", False)]
    assert symptoms(table, [], [item]) == [("it leaks", "../13_item.html", "item", True)]


def test_both_languages_say_the_same_things():
    assert WORDS["en"].keys() == WORDS["zh"].keys()
    assert INDEX["en"].keys() == INDEX["zh"].keys()
    assert INDEX["en"]["parts"].keys() == INDEX["zh"]["parts"].keys()
