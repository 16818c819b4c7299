"""What a file is worth after an accident: NaN in it, half of it, part of it, all of it."""

import pytest
import torch

from labkit import check
from labkit.bench import Bench
from labkit.failures import crash_and_recovery
from labkit.failures._interrupted import PARTS, STEPS, Training
from labkit.failures._power import PowerCut, power_cut
from labkit.training.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture
def bench():
    return Bench("crash_and_recovery")


def words(readings):
    return [str(reading.verdict) for reading in readings]


def test_the_guides_last_good_state_holds_the_nan(bench):
    reading = bench.turn("broken")
    assert reading.verdict == "lost"
    assert "the file holds NaN in 1 of 12 parameters" in str(reading)
    assert reading.culprit.source.startswith('torch.save({"model"')
    assert {fate.word for fate in reading.report.parameters} == {"nan"}


def test_saving_more_often_makes_it_worse(bench):
    bench.turn("broken")
    assert words(bench.sweep("every", 6)) == ["lost", "lost", "wrong", "lost", *["healthy"] * 2]


def test_weights_alone_are_another_run(bench):
    reading = bench.turn("another run")
    assert reading.verdict == "wrong"
    assert "the file has no optimizer, random numbers" in str(reading)
    assert abs(reading.value - reading.reference) > 0.1
    assert bench.turn(save="complete").value == bench.reading.reference


@pytest.mark.parametrize("left_out", sorted(PARTS - {"model", "step"}))
def test_each_part_is_needed(bench, left_out):
    def save(state, path):
        torch.save({name: part for name, part in state.items() if name != left_out}, path)

    reading = bench.turn("another run", repair=save)
    assert reading.verdict == "wrong"
    assert f"the file has no {left_out}" in str(reading)


def test_a_cut_leaves_half_a_file_unless_it_was_written_aside(bench):
    bench.turn("half a file")
    assert words(bench.sweep("save", 4)) == ["lost", "lost", "lost", "healthy"]
    assert "the file cannot be read" in str(bench.reading)


def test_a_recovered_run_has_the_same_bits_wherever_it_was_cut(bench):
    for accident in ("NaN gradient", "power cut"):
        bench.turn("repaired", accident=accident)
        for knob in ("at", "every"):
            for reading in bench.sweep(knob, 6):
                assert reading.value == reading.reference
                assert reading.verdict == "healthy"


def aside_unverified(state, path):
    aside = path.with_suffix(".new")
    torch.save(state, aside)
    aside.replace(path)


def nan_removed(state, path):
    clean = {name: p.nan_to_num() for name, p in state["model"].items()}
    aside_unverified(state | {"model": clean}, path)


def copied_afterwards(state, path):
    if not crash_and_recovery.non_finite(state):
        torch.save(state, path)
        torch.save(state, path.with_suffix(".copy"))


def weights_aside(state, path):
    keys = ("model", "step")
    if not crash_and_recovery.non_finite(state):
        aside_unverified({key: state[key] for key in keys}, path)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (aside_unverified, "Look at every number"),
        (nan_removed, "Look at every number"),
        (copied_afterwards, "write to another name"),
        (weights_aside, "Save all of the state"),
        (lambda state, path: state.clear(), "cannot bring the run back"),
    ],
)
def test_what_only_looks_like_a_repair_is_refused(bench, bad, words):
    result = check(bench, bad)
    assert not result
    assert words in result.hint, result


def test_the_exercise_has_an_answer_of_four_lines(bench):
    def mine(state, path):
        if not crash_and_recovery.non_finite(state):
            aside = path.with_suffix(".new")
            torch.save(state, aside)
            aside.replace(path)

    assert check(bench, mine), check(bench, mine)


def test_at_each_boundary_the_file_is_whole():
    assert crash_and_recovery.boundaries() == {
        "before write": "old",
        "after write": "old",
        "after fsync": "old",
        "before rename": "old",
        "after rename": "new",
        "after directory fsync": "new",
    }


@pytest.mark.parametrize("choice", ["raise", "skip", "rollback"])
def test_a_watch_needs_no_file(choice):
    told = crash_and_recovery.watched(choice)
    assert "step 3 undone, 0 bad numbers; born in SqrtBackward0" in told
    assert told.startswith("stopped") == (choice == "raise")


def saved(x, path):
    torch.save(x, path)


def bytes_of(x, path):
    path.write_bytes(x.numpy().tobytes())


@pytest.mark.parametrize("write", [saved, bytes_of])
def test_a_power_cut_leaves_half_of_what_is_written(tmp_path, write):
    whole, half = tmp_path / "whole", tmp_path / "half"
    write(torch.ones(50), whole)
    with pytest.raises(PowerCut), power_cut():
        write(torch.ones(50), half)
    assert abs(half.stat().st_size - whole.stat().st_size / 2) <= 64  # names of another length


def test_a_power_cut_comes_even_if_nothing_is_written(tmp_path):
    path = tmp_path / "old"
    save_checkpoint(path, {"a": 1})
    with pytest.raises(PowerCut), power_cut():
        load_checkpoint(path)


def test_a_training_goes_on_where_it_was_left():
    whole, first, second = Training(), Training(), Training()
    first.advance(), first.advance()
    second.restore(first.state())
    assert second.step == 2
    assert second.finish().losses == whole.finish().losses
    assert whole.step == STEPS - 1
