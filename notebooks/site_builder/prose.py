"""Prose to HTML that needs nothing from elsewhere: formulas as MathML, names as links."""

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from site_builder.words import WORDS

LARGE_BARS = r"(\\[Bb]igg?[lr]?)\\\|"  # the converter enlarges the sign itself, not its name
HAN, STOPS = r"\u3400-\u9fff", r"\u3001-\u3011\uff00-\uffef"  # Chinese letters, and punctuation
CHINESE = rf"[{HAN}](?:[^A-Za-z<>&\n]*[{HAN}{STOPS}])*"  # up to the next Latin letter or tag
NAME = r"<em>(?=[^<]*[A-Za-z])([ -~]+)</em>"  # in emphasis and without Chinese: of a knob


class Renderer(IPythonRenderer):
    """Markdown as nbconvert writes it, but for formulas and for links between notebooks.

    Args:
        pages: notebooks that have a page, and its address; their names in backticks become links.
    """

    def __init__(self, pages: Mapping[str, str]):
        super().__init__(escape=False, exclude_anchor_links=True)
        self.pages = pages

    def block_math(self, body: str) -> str:
        """A formula on a line of its own."""
        return mathml(body, "block")

    def inline_math(self, body: str) -> str:
        """A formula in a sentence."""
        return mathml(body, "inline")

    def codespan(self, text: str) -> str:
        """Code in a sentence; the name of a notebook leads to its page."""
        shown = super().codespan(text)
        return f'<a href="{self.pages[text]}">{shown}</a>' if text in self.pages else shown

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """A link; one to a notebook leads to its page."""
        return super().link(text, re.sub(r"\.ipynb(?=#|$)", ".html", url), title)

    def heading(self, text: str, level: int, **attributes: Any) -> str:
        """A heading with an address of its own."""
        name = re.sub(r"[^\w]+", "-", re.sub(r"<[^>]+>", "", text)).strip("-").lower()
        return f'<h{level} id="{name}">{text}</h{level}>\n'


class Exporter(HTMLExporter):
    """Cells to HTML without head, scripts or styles.

    Args:
        pages: notebooks that have a page, and its address.
    """

    def __init__(self, pages: Mapping[str, str], **options: Any):
        bare = {"exclude_input_prompt": True, "exclude_output_prompt": True}
        super().__init__(template_name="basic", **bare, **options)
        self.pages = pages

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """The filter that the template calls."""
        return MarkdownWithMath(renderer=Renderer(self.pages)).render(source)


def in_its_language(html: str, language: str) -> str:
    """Mark what a page says in the other language, so that a screen reader changes its voice.

    Args:
        html: of a whole page, or a part of it.
        language: of the page. In English, every run of Chinese is marked, as in the quotes of the
            guide. In Chinese, names of knobs are, and what the code has shown.
    """
    if language == "zh":
        html = html.replace('<div class="output">', '<div class="output" lang="en">')
        return re.sub(NAME, r'<em lang="en">\1</em>', html)
    mark = f'<span lang="{WORDS["zh"]["lang"]}">{{}}</span>'
    return re.sub(rf"(<[^>]*>)|({CHINESE})", lambda m: m[1] or mark.format(m[2]), html)


def mathml(latex: str, display: str) -> str:
    """A formula as MathML, which browsers draw by themselves.

    Raises:
        ValueError: a command that the converter does not know; it would be shown as it is written.
    """
    made = convert(re.sub(LARGE_BARS, r"\1‖", latex.strip()), display=display)
    if left := re.search(r"\\[^<]*", made):
        raise ValueError(f"formula: MathML has no {left[0]}, in {latex.strip()}")
    return made
