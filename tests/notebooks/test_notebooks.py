"""The lab's own notebooks: sound, in step with their texts, and compared by plain `pytest`."""

from pathlib import Path

import nbformat
import pytest
from builder.outline import faults
from builder.text import read_text

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
TEXTS = sorted((FOLDER / "text").glob("*.py"))


def stored(text: Path) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{text.stem}.ipynb", as_version=4)


def test_every_text_has_its_notebook_and_every_notebook_its_text():
    assert [text.stem for text in TEXTS] == sorted(path.stem for path in FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)
def test_a_notebook_is_sound(text):
    assert faults(stored(text)) == []


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)
def test_a_notebook_is_in_step_with_its_text(text):
    sources = [
        [(cell.id, cell.cell_type, cell.source, cell.metadata) for cell in notebook.cells]
        for notebook in (read_text(text), stored(text))
    ]
    assert sources[0] == sources[1], f"build it: python notebooks/build.py {text.stem}"


def test_plain_pytest_compares_the_notebooks_strictly(pytestconfig):
    assert pytestconfig.getoption("nbval")
    assert not pytestconfig.getoption("nbval_lax")
    assert pytestconfig.getoption("nbval_current_env")
    assert "notebooks" in pytestconfig.getini("testpaths")
