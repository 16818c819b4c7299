"""Two editions of a notebook from one source: the learner predicts first, the facilitator knows."""

import copy
import re

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

FIELDS = ("Aim", "Minutes", "Ask", "They answer", "They get stuck")


def learner(notebook: NotebookNode) -> NotebookNode:
    """Nothing has run yet, so that no output gives a prediction away.

    Args:
        notebook: as it is stored, with outputs.
    """
    edition = copy.deepcopy(notebook)
    for cell in edition.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return edition


def facilitator(notebook: NotebookNode, notes: str) -> NotebookNode:
    """Outputs stand, every fold is open, and the notes come after the title.

    Args:
        notebook: as it is stored, with outputs.
        notes: what `notes` found for it.
    """
    edition = copy.deepcopy(notebook)
    for cell in edition.cells:
        cell.source = cell.source.replace("<details>", "<details open>")
        for output in cell.get("outputs", ()):
            page = output.get("data", {}).get("text/html")
            if page:
                output["data"]["text/html"] = page.replace("<details", "<details open")
    page = new_markdown_cell(f"### For the facilitator\n\n{notes}", id="facilitator")
    edition.cells.insert(1, page)
    return edition


def notes(workshop: str) -> dict[str, str]:
    """What WORKSHOP.md says of each notebook, by its name.

    Raises:
        ValueError: a notebook's section leaves out one of the fields.
    """
    parts = re.split(r"^### (\d\d_\w+)\s*$", workshop, flags=re.MULTILINE)
    found = {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}
    for name, text in found.items():
        found[name] = text = text.partition("\n#")[0].strip()
        missing = [field for field in FIELDS if f"**{field}:**" not in text]
        if missing:
            raise ValueError(f"WORKSHOP.md, {name}: expected {', '.join(FIELDS)}; no {missing[0]}")
    return found
