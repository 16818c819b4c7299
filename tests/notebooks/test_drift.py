"""A stored output that differs from what runs turns plain `pytest` red, cell by cell."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]


def compared(folder: Path) -> dict[str, str]:
    """Run this project's `pytest` on a folder of notebooks: what became of each cell."""
    options = ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={ROOT}", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-v", "--color=no", str(folder)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"TQDM_DISABLE": "1"},
    )
    cells = re.findall(r"(\w+)\.ipynb::Cell (\d+) (PASSED|FAILED)", done.stdout)
    outcomes = {f"{name} {number}": word for name, number, word in cells}
    assert done.returncode == ("FAILED" in outcomes.values()), done.stdout + done.stderr
    return outcomes


@pytest.fixture(scope="module")
def outcomes(built, tmp_path_factory) -> dict[str, str]:
    """A sound notebook, and the same one with stored outputs that no run gives."""
    notebook = nbformat.read(built / "01_flooded_cellar.ipynb", as_version=4)
    folder = tmp_path_factory.mktemp("drift")
    nbformat.write(notebook, folder / "sound.ipynb")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code[2].outputs[0].text = "wet: False\n"
    code[3].outputs[0].evalue = "division by two"
    code[4].outputs.pop()
    code[6].outputs = []
    code[10].source = "assert LEVELS[0] == 1"
    nbformat.write(notebook, folder / "drifted.ipynb")
    return compared(folder)


def test_a_sound_notebook_stays_green(outcomes):
    assert {word for cell, word in outcomes.items() if cell.startswith("sound")} == {"PASSED"}


@pytest.mark.parametrize(
    ("number", "drift"),
    [
        (2, "text"),
        (3, "error message"),
        (4, "figure lost"),
        (6, "outputs stripped"),
        (10, "assert"),
    ],
)
def test_a_drifted_cell_turns_red(outcomes, number, drift):
    assert outcomes[f"drifted {number}"] == "FAILED"


def test_the_other_cells_stay_green(outcomes):
    red = [cell for cell, word in outcomes.items() if word == "FAILED"]
    assert red == [f"drifted {number}" for number in (2, 3, 4, 6, 10)]
