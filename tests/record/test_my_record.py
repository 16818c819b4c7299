"""The learner's record: what is noted, what is not, and that nothing of it is ever lost."""

import json
import warnings
from multiprocessing import get_context

import pytest

from labkit import Bench, check, hint, news, predict
from labkit.failures import distance_at_zero, exploding_logvar
from labkit.record import asked, keeper, mine, store, suggest
from labkit.record.books import NOTEBOOKS, books, questions, questions_of
from labkit.record.place import COPIES, NAME, place
from labkit.record.view import next_up, standing

NAME_OF_ONE = "exploding_logvar"


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """No record, no hint given, and a folder of its own."""
    for variable in ("CI", "LABKIT_RECORD"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    keeper._seen.clear()
    keeper._told.clear()
    asked._given.clear()


@pytest.fixture
def book(tmp_path):
    """A folder with the learner's copies; the entries that are recorded in it."""
    (tmp_path / COPIES).write_text("{}")

    def entries():
        return json.loads((tmp_path / NAME).read_text())["failures"]

    return entries


def turned(name=NAME_OF_ONE, verdict="inf"):
    news.tell("turned", name, verdict=verdict)


def test_nothing_is_recorded_outside_the_learners_folder(tmp_path):
    assert place() is None
    turned()
    predict(NAME_OF_ONE, "C")
    assert list(tmp_path.iterdir()) == []
    assert "No record is kept here" in repr(mine())


@pytest.mark.parametrize(("variable", "value"), [("CI", "true"), ("LABKIT_RECORD", "off")])
def test_nothing_is_recorded_in_ci_or_when_it_is_off(book, monkeypatch, tmp_path, variable, value):
    monkeypatch.setenv(variable, value)
    turned()
    assert not (tmp_path / NAME).exists()


def test_another_file_can_be_named(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_RECORD", str(tmp_path / "far" / "mine.json"))
    turned()
    assert (tmp_path / "far" / "mine.json").exists()


def test_one_way_through_a_notebook(book):
    bench = Bench(NAME_OF_ONE)
    predict(bench, "a")
    predict(bench, "C")
    bench.turn("healthy")
    bench.turn("broken")
    bench.turn("broken", guard="clamp")
    check(bench, lambda logvar: ...)
    hint(bench)
    check(bench, exploding_logvar.FORMS["clamp"])
    check(bench, exploding_logvar.FORMS["straight-through"])
    entry = book()[NAME_OF_ONE]
    assert (entry["predicted"], entry["right"]) == ("A", False), "the first one counts"
    assert entry["broken"] == ["inf", "dead"]
    assert (entry["tries"], entry["hints"]) == (2, 1), "the stub is no try"
    assert entry["repaired"].count("-") == 2
    assert "22_exploding_logvar  wrong       inf, dead  repaired, 2 tries  1" in repr(mine())


def test_what_comes_after_the_repair_changes_nothing(book):
    news.tell("checked", NAME_OF_ONE, passed=True)
    news.tell("checked", NAME_OF_ONE, passed=False)
    news.tell("hinted", NAME_OF_ONE, number=2)
    assert set(book()[NAME_OF_ONE]) == {"tries", "repaired"}


def test_a_slider_that_moves_writes_once(book, monkeypatch):
    writes = []
    monkeypatch.setattr(keeper, "change", lambda path, edit: writes.append(path) or "")
    (place()).write_text("{}")
    for _ in range(50):
        turned()
    turned(verdict="healthy")
    turned(verdict="nan")
    assert len(writes) == 2


def test_not_attempted_is_not_wrong():
    assert standing("detach", {}).repair == "not attempted"
    assert standing("detach", {}).state == "untouched"
    assert standing("detach", {"broken": ["wrong"]}).state == "started"
    assert standing("detach", {"tries": 1}).repair == "not yet, 1 try"
    assert standing("detach", {"tries": 1}).state == "wrong"
    assert standing("detach", {"predicted": "A", "right": False}).state == "wrong"
    assert standing("detach", {"predicted": "A", "right": None}).predicted == "noted"


def test_a_solved_case_stands_in_the_record_with_its_best_score(book):
    for score in (60, 94, 80):
        news.tell("solved", "whodunit", seed=14, score=score, line=f"case 14: {score} of 100")
    assert book()["whodunit"]["cases"]["14"]["score"] == 94
    assert "46_whodunit  -           -       solved, 1 case  0" in repr(mine())
    assert "whodunit case 14: 94 of 100" in repr(mine())


def test_what_to_do_next():
    entries = {"item": {"tries": 3}, "detach": {"broken": ["wrong"]}}
    lines = next_up([standing(name, entries.get(name, {})) for name in books()])
    assert lines[0] == "next: 13_item: not yet, 3 tries; ask hint('item')"
    assert lines[1] == "next: 12_detach: you have seen it break; repair it"
    assert lines[2] == "next: 10_accumulation: not attempted yet"
    done = [standing(name, {"tries": 1, "repaired": "today"}) for name in books()]
    assert next_up(done) == ["all repaired. Next: your own model."]


def test_a_damaged_file_is_kept_aside_and_a_new_record_begins(book, tmp_path):
    broken = '{"version": 1, "failures": {"item": {"tr'
    (tmp_path / NAME).write_text(broken)
    with pytest.warns(UserWarning, match=r"could not be read .* kept as my_record.damaged-1.json"):
        turned()
    assert (tmp_path / "my_record.damaged-1.json").read_text() == broken
    assert set(book()) == {NAME_OF_ONE}
    (tmp_path / NAME).write_text("[]")
    keeper._seen.clear()
    with pytest.warns(UserWarning, match="damaged-2"):
        turned()


@pytest.mark.parametrize("text", ['{"version": "1"}', '{"version": 1, "failures": [1]}', "\xff"])
def test_what_else_is_damaged(tmp_path, text):
    path = tmp_path / NAME
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"expected|decode"):
        store.read(path)


def test_a_newer_file_is_left_alone(book, tmp_path):
    newer = '{"version": 2, "chapters": []}'
    (tmp_path / NAME).write_text(newer)
    with pytest.warns(UserWarning, match="version 2, from a newer lab"):
        turned()
    assert (tmp_path / NAME).read_text() == newer
    assert "newer lab" in repr(mine())


def test_a_folder_that_cannot_be_written_does_not_stop_the_work(book, monkeypatch):
    def full(path, book):
        raise OSError("No space left on device")

    monkeypatch.setattr(store, "write", full)
    with pytest.warns(UserWarning, match="nothing is recorded: No space left"):
        Bench("distance_at_zero").turn("broken")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        check("distance_at_zero", distance_at_zero.FORMS["root"])


def test_a_write_that_breaks_off_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / NAME
    store.write(path, store.empty())
    before = path.read_text()

    def breaks(number):
        raise OSError("power cut")

    monkeypatch.setattr(store.os, "fsync", breaks)
    with pytest.raises(OSError, match="power cut"):
        store.write(path, {"version": 1, "failures": {"item": {}}})
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == [NAME]


def count_up(path, times):
    def edit(book):
        entry = book["failures"].setdefault("item", {"tries": 0})
        entry["tries"] += 1
        return True

    for _ in range(times):
        store.change(path, edit)


def test_two_notebooks_lose_nothing(tmp_path):
    path, context = tmp_path / NAME, get_context("fork")
    writers = [context.Process(target=count_up, args=(path, 20)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert store.read(path)["failures"]["item"]["tries"] == 40


def test_a_lock_that_nobody_holds_any_more_is_taken(tmp_path, monkeypatch):
    (tmp_path / f".{NAME}.lock").touch()
    monkeypatch.setattr(store, "STALE", -1.0)
    count_up(tmp_path / NAME, 1)
    assert (tmp_path / NAME).exists()


def test_a_lock_that_is_held_is_waited_for_and_then_told(tmp_path, monkeypatch):
    (tmp_path / f".{NAME}.lock").touch()
    monkeypatch.setattr(store, "PATIENCE", 0.02)
    with pytest.raises(store.NotOurs, match="another notebook is writing"):
        count_up(tmp_path / NAME, 1)


def test_hints_come_one_by_one_and_are_the_notebooks_own():
    own = questions_of(NAME_OF_ONE).hints
    assert len(own) == 2
    assert str(hint(NAME_OF_ONE)) == f"hint 1 of 2: {own[0]}"
    assert str(hint(NAME_OF_ONE)) == f"hint 2 of 2: {own[1]}"
    assert "no more hints" in str(hint(NAME_OF_ONE))
    assert hint("item").text.startswith("hint 1"), "each failure counts for itself"


def test_a_prediction_without_a_letter_is_not_attempted(book, tmp_path):
    assert str(predict(NAME_OF_ONE)).startswith("not attempted: choose one of A, B, C, D")
    assert predict(NAME_OF_ONE, ...).text.startswith("not attempted")
    assert not (tmp_path / NAME).exists()
    with pytest.raises(ValueError, match="expected one of A, B, C, D; got 'E'"):
        predict(NAME_OF_ONE, "E")


def test_a_prediction_does_not_give_the_answer_away():
    assert str(predict(NAME_OF_ONE, "C")).replace("C", "A") == str(predict(NAME_OF_ONE, "A"))


def kind(name):
    path = NOTEBOOKS / f"{books()[name]}_{name}.ipynb"
    return json.loads(path.read_text(encoding="utf-8"))["metadata"]["labkit"]["kind"]


@pytest.mark.parametrize("name", books())
def test_what_a_notebook_asks_is_found(name):
    asks = questions_of(name)
    assert asks.key in asks.choices or not asks.choices
    if kind(name) == "failure":
        assert len(asks.choices) >= 2
        assert len(asks.hints) >= 2


def test_a_notebook_that_asks_nothing_has_no_questions():
    assert questions("# Title\n\nText.") == questions_of("nowhere")


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("my loss is Inf", "22_exploding_logvar"),
        ("one layer does not move", "23_dead_clamp"),
        ("half of my parameters have no gradients", "13_item"),
        ("log-likelihood too good", "24_vanishing_dispersion"),
    ],
)
def test_a_symptom_leads_to_a_notebook(words, first):
    assert suggest(words).startswith(first)


def test_a_symptom_that_nobody_knows_leads_to_the_tracer():
    assert "labkit.trace" in suggest("my cat is on fire")
