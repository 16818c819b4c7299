"""From a text in py:percent to a notebook without outputs."""

import hashlib
from collections import Counter
from pathlib import Path

import jupytext
from nbformat import NotebookNode

KEPT = ("tags", "alt")  # of a cell's metadata: nbval reads the one, nbconvert the other
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}


def read_text(path: Path) -> NotebookNode:
    """The notebook that a text describes: sources, tags, kind and stable ids; no outputs.

    Args:
        path: a py:percent file. Its header declares ``jupyter: {labkit: {kind: failure}}``.
    """
    notebook = jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent")
    seen: Counter = Counter()
    for cell in notebook.cells:
        cell.metadata = NotebookNode(
            {key: cell.metadata[key] for key in KEPT if key in cell.metadata}
        )
        identity = f"{path.stem}\n{cell.cell_type}\n{cell.source}"
        cell.id = _id(identity, seen[identity])
        seen[identity] += 1
    own = notebook.metadata.get("labkit", {})
    notebook.metadata = NotebookNode(kernelspec=KERNEL, labkit=own)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def _id(identity: str, copy: int) -> str:
    """An id from what the cell says, so that an edit elsewhere leaves it alone."""
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return f"{digest}-{copy}" if copy else digest
