"""A second language: prose beside prose, the English code and outputs, nothing that drifts."""

import copy
import shutil
import subprocess
import sys
from pathlib import Path

import build
import nbformat
import pytest
from builder.text import read_text
from builder.translation import LANGUAGES, translate
from workshop import FIXTURES

from labkit.record.place import COPIES, NAME, VARIABLE, place

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
TEXTS = sorted(path for language in LANGUAGES for path in FOLDER.glob(f"text/{language}/*.py"))
EXAMPLE = FOLDER / "text" / "zh" / "22_exploding_logvar.py"
each_text = pytest.mark.parametrize(
    "text", TEXTS, ids=lambda text: f"{text.parent.name}_{text.stem}"
)


def stored(stem: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{stem}.ipynb", as_version=4)


def changed(folder: Path, *change: str) -> Path:
    """A copy of the example in which one text became another."""
    (folder / "zh").mkdir()
    source = EXAMPLE.read_text(encoding="utf-8")
    assert change[0] in source
    (folder / "zh" / EXAMPLE.name).write_text(source.replace(*change, 1), encoding="utf-8")
    return folder / "zh" / EXAMPLE.name


def test_the_first_notebooks_are_translated():
    stems = {text.stem for text in TEXTS if text.parent.name == "zh"}
    assert stems >= {"00_start_here", "10_accumulation", "22_exploding_logvar"}


@each_text
def test_a_translation_is_in_step_with_the_english_notebook(text):
    made = translate(stored(text.stem), text)
    kept = nbformat.read(FOLDER / text.parent.name / f"{text.stem}.ipynb", as_version=4)
    assert made.faults == ()
    again = f"python notebooks/build.py --translations {text.stem}"
    assert kept == made.notebook, f"renew it, nothing is run: {again}"


@each_text
def test_code_and_outputs_are_the_english_ones(text):
    kept = nbformat.read(FOLDER / text.parent.name / f"{text.stem}.ipynb", as_version=4)
    code = [
        [(cell.id, cell.source, cell.outputs) for cell in notebook.cells if "outputs" in cell]
        for notebook in (kept, stored(text.stem))
    ]
    assert code[0] == code[1]
    assert len(code[0]) > 5


def test_translations_are_not_run_again():
    """Their outputs are compared above, so nbval leaves them out."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", str(FOLDER / "zh"), "-n0"]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True)
    assert "no tests collected" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            ("\n# %% [markdown] of=", "\n# %%\nbench = 3\n\n# %% [markdown] of="),
            "is code; a transl",
        ),
        (('# %% [markdown] of="9beed0da"\n', ""), "11 cells of prose; the English notebook has 12"),
        (("88.72", "88.73"), "numbers in one language only: 88.72, 88.73"),
        (("`fc_logvar`", "fc_logvar"), "code in one language only: `fc_logvar`"),
        (("$M$", "M"), "7 formulas; the English has 8"),
        (("<details><summary>答案</summary>", "答案"), "0 folds; the English has 1"),
        (("# ## 弄坏", "# 弄坏"), "0 headings; the English has 1"),
    ],
    ids=["code", "cell", "number", "name", "formula", "fold", "heading"],
)
def test_a_translation_that_lost_something_is_refused(tmp_path, change, fault):
    made = translate(stored(EXAMPLE.stem), changed(tmp_path, *change))
    assert [line for line in made.faults if fault in line], made.faults


def test_changed_english_is_told_to_translator_and_reader():
    english = stored(EXAMPLE.stem)
    before = translate(english, EXAMPLE)
    assert before.old == ()
    edited = copy.deepcopy(english)
    edited.cells[0].source += "\nOne more sentence."
    made = translate(edited, EXAMPLE)
    assert made.faults == ()
    assert len(made.old) == 1
    assert made.old[0].startswith("prose 1: says of=")
    assert "请对照英文版" in made.notebook.cells[0].source
    assert "请对照英文版" not in made.notebook.cells[2].source


def test_the_builder_renews_translations_and_runs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build, "run", lambda *_: pytest.fail("a cell was run"))
    (tmp_path / "text" / "zh").mkdir(parents=True)
    shutil.copy(FOLDER / "text" / EXAMPLE.name, tmp_path / "text")
    shutil.copy(FOLDER / f"{EXAMPLE.stem}.ipynb", tmp_path)
    shutil.copy(EXAMPLE, tmp_path / "text" / "zh")
    for word in ("new", "unchanged"):
        assert build.main(["--translations"], tmp_path) == 0
        assert f"zh/{EXAMPLE.stem}: {word}" in capsys.readouterr().out
    assert build.main(["--translations", "--check"], tmp_path) == 0
    made = (tmp_path / "zh" / f"{EXAMPLE.stem}.ipynb").read_text(encoding="utf-8")
    shutil.copy(changed(tmp_path / "text" / "zh", "88.72", "88.73"), tmp_path / "text" / "zh")
    assert build.main(["--translations"], tmp_path) == 1
    assert "✗ prose 3: numbers in one language only" in capsys.readouterr().out
    assert (tmp_path / "zh" / f"{EXAMPLE.stem}.ipynb").read_text(encoding="utf-8") == made


def test_a_translated_notebook_writes_into_the_same_record(tmp_path, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv(VARIABLE, raising=False)
    (tmp_path / "zh").mkdir()
    monkeypatch.chdir(tmp_path / "zh")
    assert place() is None
    (tmp_path / COPIES).touch()
    assert place() == tmp_path / NAME


def test_a_fixture_without_a_translation_needs_none(built):
    assert not (built / "zh").exists()
    assert all(read_text(path).cells for path in FIXTURES.glob("sound/*.py"))
