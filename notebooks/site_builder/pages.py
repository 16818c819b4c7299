"""From an executed notebook to one page: pictures beside it, exhibits inside it."""

import base64
import gzip
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import nbformat
from nbformat import NotebookNode

from site_builder.prose import Exporter, in_its_language
from site_builder.words import ROOTS, WORDS

HERE = Path(__file__).parent
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
TITLE, NICKNAME = r"^# +(.+)$", r"^\*([^*]+)\*$"
SYMPTOM = r"^\*\*(?:Symptom|症状)[:：]\*\*\s*(.+)$"
MINUTES = r"^\*\*(?:Minutes|分钟)[:：]\*\*\s*(\d+)"


@dataclass(frozen=True)
class Page:
    """What the index and the neighbours know of a page."""

    stem: str
    title: str
    symptom: str
    minutes: str
    language: str = "en"


def prose_of(notebook: Path) -> str:
    """The words of a notebook."""
    cells = nbformat.read(notebook, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def read_page(notebook: Path, language: str = "en") -> Page:
    """Title, symptom and minutes, as the notebook's first lines say them."""
    text = prose_of(notebook)
    title, *lines = (re.search(pattern, text, re.M) for pattern in (TITLE, SYMPTOM, NICKNAME))
    minutes = re.search(MINUTES, text, re.M)
    symptom = next((line[1].replace("`", "") for line in lines if line), "")
    return Page(
        notebook.stem,
        title[1] if title else notebook.stem,
        symptom,
        minutes[1] if minutes else "",
        language,
    )


def write_page(
    page: Page, notebook: Path, exhibits: Sequence[dict[str, Any]], target: Path, around: dict
) -> None:
    """Write one page, and its pictures into a folder beside it.

    Args:
        page: from `read_page`.
        notebook: the executed file.
        exhibits: from `captured`.
        target: the HTML file.
        around: what the template needs besides: ``pages``, ``before``, ``after`` and ``other``.
    """
    content = nbformat.read(notebook, as_version=4)
    pictures = target.parent / "pictures" / page.stem
    pictures.mkdir(parents=True, exist_ok=True)
    for index, cell in enumerate(content.cells):
        for number, output in enumerate(cell.get("outputs", ())):
            _keep_picture(output, pictures / f"{index + 1}_{number}.png", target.parent)
        cell.get("outputs", []).extend(_places(exhibits, index))
    body, _ = Exporter(around["pages"]).from_notebook_node(content)
    text = TEMPLATES.get_template("page.html.j2").render(
        page=page,
        body=in_its_language(body, page.language),
        packed=packed(exhibits) if exhibits else "",
        words=WORDS[page.language],
        root=ROOTS[page.language],
        **around,
    )
    target.write_text(text, encoding="utf-8")


def packed(exhibits: Sequence[dict[str, Any]]) -> str:
    """The exhibits as one word of letters: a tenth of their JSON; the browser unpacks it."""
    data = json.dumps(exhibits, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def _keep_picture(output: NotebookNode, path: Path, folder: Path) -> None:
    """Move a picture out of the page; its words become its alternative text."""
    data = output.get("data", {})
    if "image/png" not in data:
        return
    path.write_bytes(base64.b64decode(data["image/png"]))
    output.metadata["filenames"] = {"image/png": path.relative_to(folder).as_posix()}
    told = output.metadata.setdefault("image/png", {})
    told.setdefault("alt", data.get("text/plain", ""))


def _places(exhibits: Sequence[dict[str, Any]], index: int) -> list[NotebookNode]:
    """Where the exhibits of a cell will stand."""
    places = [
        f'<div class="exhibit" data-exhibit="{number}" data-kind="{exhibit["kind"]}"></div>'
        for number, exhibit in enumerate(exhibits)
        if exhibit["cell"] == index
    ]
    html = {"text/html": "\n".join(places)}
    return [nbformat.v4.new_output("display_data", html)] if places else []
