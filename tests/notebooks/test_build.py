"""The builder: same bytes every time, nothing of the machine kept, every fault refused in words."""

import json
import shutil
from pathlib import Path

import build
import nbformat
import pytest
from workshop import FIXTURES, fresh

WRONG = sorted(FIXTURES.glob("wrong/*.py"))
IMPATIENT = 0.3  # CPU seconds for a cell; far below the real limit, so that the test is short
WIDGET = "application/vnd.jupyter.widget-view+json"


def cells(path: Path) -> list:
    return nbformat.read(path, as_version=4).cells


def test_a_second_build_gives_the_same_bytes(built, capsys):
    before = {path.name: path.read_bytes() for path in built.glob("*.ipynb")}
    assert build.main([], built) == 0
    assert {path.name: path.read_bytes() for path in built.glob("*.ipynb")} == before
    assert sorted(before) == ["01_flooded_cellar.ipynb", "02_live_panel.ipynb"]
    assert capsys.readouterr().out.count(": unchanged;") == 2


def test_outputs_and_counts_are_kept(built):
    code = [cell for cell in cells(built / "01_flooded_cellar.ipynb") if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert code[2].outputs[0].text == "wet: True\n"


def test_a_live_view_gives_way_to_its_picture(built):
    (output,) = cells(built / "02_live_panel.ipynb")[4].outputs
    assert output.data.keys() == {"image/png", "text/plain"}


def test_nothing_of_the_run_or_the_machine_is_stored(built):
    for path in built.glob("*.ipynb"):
        notebook = json.loads(path.read_text())
        assert notebook["metadata"].keys() == {"kernelspec", "language_info", "labkit"}
        assert "version" not in notebook["metadata"]["language_info"]
        assert all(cell["metadata"].keys() <= {"tags", "alt"} for cell in notebook["cells"])


def test_a_traceback_names_files_without_the_machine(built):
    (output,) = cells(built / "02_live_panel.ipynb")[-1].outputs
    assert "json/__init__.py" in "\n".join(output.traceback)
    assert "lib/python" not in "\n".join(output.traceback)


def test_ids_stay_where_another_cell_is_edited(built, tmp_path):
    text = FIXTURES / "sound" / "02_live_panel.py"
    edited = tmp_path / text.name
    edited.write_text(text.read_text().replace("An empty square.", "A full square."))
    before, after = (build.read_text(path).cells for path in (text, edited))
    changed = [a.source for b, a in zip(before, after, strict=True) if a.id != b.id]
    assert changed == ["A full square."]


def test_equal_cells_have_different_ids(tmp_path):
    text = tmp_path / "twice.py"
    text.write_text("# %%\nwater = 3\n\n# %%\nwater = 3\n")
    first, second = build.read_text(text).cells
    assert first.id != second.id


@pytest.mark.parametrize("text", WRONG, ids=lambda path: path.stem)
def test_a_wrong_notebook_is_refused(text, tmp_path):
    refused = build.read_text(text).metadata.labkit.refused
    result = build.build(text, tmp_path, slowest=IMPATIENT)
    assert [fault for fault in result.faults if refused in fault], result.faults


def test_a_failed_build_leaves_the_old_notebook(tmp_path, capsys):
    folder = fresh(tmp_path / "notebooks")
    shutil.copy(FIXTURES / "wrong" / "fails.py", folder / "text" / "01_fails.py")
    (folder / "01_fails.ipynb").write_text("the old one")
    assert build.main([], folder) == 1
    assert (folder / "01_fails.ipynb").read_text() == "the old one"
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_check_writes_nothing_and_fails_on_a_change(tmp_path, capsys):
    folder = fresh(tmp_path / "notebooks", FIXTURES / "sound" / "02_live_panel.py")
    assert build.main(["--check"], folder) == 1
    assert not list(folder.glob("*.ipynb"))
    assert "02_live_panel: new" in capsys.readouterr().out


def test_an_unknown_name_lists_what_exists(built, capsys):
    with pytest.raises(SystemExit):
        build.main(["live_panel", "drained_lake"], built)
    message = capsys.readouterr().err
    assert "expected some of 01_flooded_cellar, 02_live_panel; got drained_lake" in message


@pytest.mark.parametrize("name", ["live_panel", "02_live_panel", "notebooks/02_live_panel.ipynb"])
def test_a_notebook_has_many_names(built, name):
    assert [path.stem for path in build.texts([name], built)] == ["02_live_panel"]


def test_changes_are_said_in_words(built):
    old = (built / "02_live_panel.ipynb").read_text()
    notebook = nbformat.reads(old, as_version=4)
    assert build.changes(old, old) == "unchanged"
    notebook.cells[3].source += "\n"
    assert "changed from cell 4 (class Panel:) on: source" in build.changes(
        old, build.dumps(notebook)
    )
    assert build.changes(old, build.dumps(notebook).replace("Panel:", "Bench:")) != "unchanged"
    notebook.cells.pop()
    notebook.cells[3].source = notebook.cells[3].source[:-1]
    assert "7 cells before, 6 now" in build.changes(old, build.dumps(notebook))
