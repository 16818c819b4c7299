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


AGENDAS = {"Two hours": (115, 120), "Half a day": (220, 240), "A day": (410, 480)}
OWN_MODEL = 30  # minutes at the end of each agenda for the model that a learner brought
MINUTES = re.compile(r"\*\*Minutes:\*\* (\d+)")


def agenda(hours):
    """The rows of an agenda: minutes, and the notebooks of the last column."""
    table = WORKSHOP.partition(f"## {hours}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \|.*\| (.*) ?\|$", table, re.MULTILINE)
    return [(int(minutes), named.strip()) for minutes, named in rows]


def least(named, minutes):
    """What the notebooks of a row take; of two that are a choice, the longer one."""
    groups = [re.findall(r"\d\d_\w+", group) for group in named.split(",")]
    return sum(max(map(minutes.get, group), default=0) for group in groups)


@pytest.fixture(scope="module")
def minutes():
    """How long each notebook says that it takes."""
    return {
        path.stem: int(MINUTES.search(path.read_text(encoding="utf-8"))[1])
        for path in (ROOT / "notebooks" / "text").glob("[0-9][0-9]_*.py")
    }


@pytest.mark.parametrize("hours", AGENDAS)
def test_an_agenda_fills_its_time(hours):
    low, high = AGENDAS[hours]
    assert low <= sum(taken for taken, _ in agenda(hours)) <= high


@pytest.mark.parametrize("hours", AGENDAS)
def test_an_agenda_gives_each_notebook_its_time(hours, minutes):
    short = [row for row in agenda(hours) if row[0] < least(row[1], minutes)]
    assert not short


@pytest.mark.parametrize("hours", AGENDAS)
def test_an_agenda_ends_with_the_learners_own_model(hours):
    *_, (taken, named), (_, last) = agenda(hours)
    assert named == "45_your_own_model"
    assert taken >= OWN_MODEL
    assert last in ("", "99_reference_card")


def test_workshop_and_notebook_say_the_same_minutes(minutes):
    said = {name: int(MINUTES.search(text)[1]) for name, text in notes(WORKSHOP).items()}
    assert said == minutes


def test_the_readme_says_the_same_minutes(minutes):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d\d) \| \[(\w+)\].* (\d+) \|$", readme, re.MULTILINE)
    said = {f"{number}_{name}": int(taken) for number, name, taken in rows}
    assert said == {name: minutes[name] for name in said}
    assert len(said) == sum(name[:2] not in ("00", "46", "99") for name in minutes)


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
