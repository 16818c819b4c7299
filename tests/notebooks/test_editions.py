"""Learner's and facilitator's edition: one source, and nothing that gives a prediction away."""

import copy
import re
import sys

import nbformat
import pytest

from bootstrap import ROOT

sys.path.insert(0, str(ROOT / "notebooks"))
from builder.editions import FIELDS, facilitator, learner, notes

WORKSHOP = (ROOT / "WORKSHOP.md").read_text()
STORED = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
EXAMPLE = ROOT / "notebooks" / "22_exploding_logvar.ipynb"


@pytest.fixture
def stored():
    return nbformat.read(EXAMPLE, as_version=4)


def code(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_every_notebook_has_its_section():
    assert list(notes(WORKSHOP)) == [path.stem for path in STORED]


def test_every_notebook_of_an_agenda_exists():
    named = set(re.findall(r"\b\d\d_\w+", WORKSHOP))
    assert named <= {path.stem for path in STORED}


@pytest.mark.parametrize("hours", ["Two hours", "Half a day", "A day"])
def test_an_agenda_fills_its_time(hours):
    table = WORKSHOP.partition(f"## {hours}\n")[2].partition("\n## ")[0]
    minutes = sum(int(found) for found in re.findall(r"^\| (\d+) \|", table, re.MULTILINE))
    expected = {"Two hours": (115, 125), "Half a day": (220, 245), "A day": (410, 480)}[hours]
    assert expected[0] <= minutes <= expected[1]


def test_a_section_that_leaves_out_a_field_is_named():
    with pytest.raises(ValueError, match=r"22_exploding_logvar.*no Minutes"):
        notes("### 22_exploding_logvar\n\n**Aim:** to see.\n")


def test_a_learner_sees_no_output(stored):
    before = copy.deepcopy(stored)
    edition = learner(stored)
    assert all(not cell.outputs for cell in edition.cells if cell.cell_type == "code")
    assert "<details>" in str(edition.cells), "answers stay folded"
    assert stored == before, "the stored notebook is left alone"
    nbformat.validate(edition)


def test_a_facilitator_sees_everything(stored):
    said = notes(WORKSHOP)["22_exploding_logvar"]
    edition = facilitator(stored, said)
    assert "<details>" not in str(edition.cells)
    assert all(f"**{field}:**" in edition.cells[1].source for field in FIELDS)
    assert edition.cells[0].source == stored.cells[0].source
    outputs = [cell.outputs for cell in edition.cells if cell.cell_type == "code"]
    assert sum(map(len, outputs)) == sum(len(c.get("outputs", ())) for c in stored.cells)
    nbformat.validate(edition)


def test_both_run_the_same_code(stored):
    said = notes(WORKSHOP)["22_exploding_logvar"]
    assert code(learner(stored)) == code(facilitator(stored, said)) == code(stored)


def test_both_editions_are_written(tmp_path, monkeypatch):
    import editions

    text = "".join(f"### {p.stem}\n\n" + "".join(f"**{f}:** x\n" for f in FIELDS) for p in STORED)
    (tmp_path / "WORKSHOP.md").write_text(text)
    monkeypatch.setattr(editions, "ROOT", tmp_path)
    assert editions.main([str(tmp_path / "out")]) == 0
    for edition in ("learner", "facilitator"):
        made = sorted(path.name for path in (tmp_path / "out" / edition).iterdir())
        assert made == [path.name for path in STORED]
