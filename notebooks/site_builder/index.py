"""The page of all pages: by symptom, as the start notebook lists them, and by part."""

import re
from collections.abc import Iterable
from pathlib import Path

from site_builder.pages import TEMPLATES, Page
from site_builder.words import INDEX, ROOTS, WORDS

SYMPTOM_ROW = r"^\| ([^|]+) \| `(\d\d_\w+)` \|$"


def symptoms(start: str, pages: Iterable[Page], english: Iterable[Page]) -> list[tuple]:
    """What a reader sees, where to go, its title, and whether it is there in English alone.

    Args:
        start: the text of the start notebook; the rows of its table that have a page are taken.
        pages: of the index's own language.
        english: all of them.
    """
    own = {page.stem: page for page in pages}
    every = {page.stem: page for page in english} | own
    rows = re.findall(SYMPTOM_ROW, start, re.M)
    links = {s: f"{s}.html" if s in own else f"../{s}.html" for s in every}
    return [(w, links[s], every[s].title, s not in own) for w, s in rows if s in every]


def parts(pages: Iterable[Page], names: dict[str, str]) -> list[tuple[str, list[Page]]]:
    """Pages by part, told by the first digit of their number; parts without a page are left out."""
    found: dict[str, list[Page]] = {name: [] for name in names.values()}
    for page in sorted(pages, key=lambda page: page.stem):
        found[names[page.stem[0]]].append(page)
    return [(name, members) for name, members in found.items() if members]


def write_index(
    pages: list[Page], english: list[Page], target: Path, start: str = "", other: str = ""
) -> None:
    """Write the index of one language.

    Args:
        pages: of one language, at least one.
        english: the pages of the whole site, for what is not translated.
        target: the HTML file, beside the pages.
        start: the text of the start notebook in this language, which has a table of symptoms.
        other: address of the index in the other language; empty: there is none.
    """
    language = pages[0].language
    text = TEMPLATES.get_template("index.html.j2").render(
        words=WORDS[language],
        said=INDEX[language],
        symptoms=symptoms(start, pages, english),
        parts=parts(pages, INDEX[language]["parts"]),
        root=ROOTS[language],
        other=other,
    )
    target.write_text(text, encoding="utf-8")
