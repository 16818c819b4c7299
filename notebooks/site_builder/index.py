"""The page of all pages: by symptom, as the README lists them, and by part."""

import re
from collections.abc import Iterable
from pathlib import Path

from site_builder.pages import TEMPLATES, Page
from site_builder.words import INDEX, ROOTS, WORDS

SYMPTOM_ROW = r"^\| ([^|]+) \| \[(\d\d_\w+)\]\([^)]*\) \|$"


def symptoms(readme: str, pages: Iterable[Page]) -> list[tuple[str, Page]]:
    """What a reader sees and where to go: the rows of the README's first table that have a page."""
    known = {page.stem: page for page in pages}
    rows = re.findall(SYMPTOM_ROW, readme, re.M)
    return [(words, known[stem]) for words, stem in rows if stem in known]


def parts(pages: Iterable[Page], names: dict[str, str]) -> list[tuple[str, list[Page]]]:
    """Pages by part, told by the first digit of their number; parts without a page are left out."""
    found: dict[str, list[Page]] = {name: [] for name in names.values()}
    for page in sorted(pages, key=lambda page: page.stem):
        found[names[page.stem[0]]].append(page)
    return [(name, members) for name, members in found.items() if members]


def write_index(pages: list[Page], target: Path, readme: str = "", other: str = "") -> None:
    """Write the index of one language.

    Args:
        pages: of one language, at least one.
        target: the HTML file, beside the pages.
        readme: whose table of symptoms it holds; empty: none.
        other: address of the index in the other language; empty: there is none.
    """
    language = pages[0].language
    text = TEMPLATES.get_template("index.html.j2").render(
        words=WORDS[language],
        said=INDEX[language],
        symptoms=symptoms(readme, pages),
        parts=parts(pages, INDEX[language]["parts"]),
        root=ROOTS[language],
        other=other,
    )
    target.write_text(text, encoding="utf-8")
