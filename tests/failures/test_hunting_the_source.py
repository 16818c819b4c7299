"""Who names the guilty line: four rules, seven detectors, ten faults and a healthy program."""

import pytest

from labkit import check, trace
from labkit.bench import Bench
from labkit.failures import _detectors, _hunted
from labkit.failures import hunting_the_source as lab

SILENT = "-"


@pytest.fixture
def bench():
    return Bench("hunting_the_source")


@pytest.fixture(scope="module")
def seen():
    return lab.line_up()


def column(seen, detector):
    return {fault: row[detector] for fault, row in seen.items() if row[detector] != SILENT}


@pytest.mark.parametrize("name", _hunted.ALL)
def test_a_planted_fault_has_one_line_and_mended_it_is_well(name):
    make = _hunted.ALL[name]
    step, model = make(False)
    assert trace(step, model=model).verdict == "healthy"
    step, model = make(True)
    report = trace(step, model=model)
    assert (report.verdict == "healthy") == (name == "none")
    if name != "none":
        assert report.culprit.line == _detectors.true_line(make)


def test_nobody_accuses_the_healthy_program(seen):
    assert set(seen["none"].values()) == {SILENT}


def test_detect_anomaly_is_wrong_more_often_than_right(seen):
    told = list(column(seen, "anomaly").values())
    assert sorted(told) == ["line"] * 3 + ["wrong line"] * 4
    assert seen["KL overflow"]["anomaly"] == "wrong line"
    assert seen["log of negative"]["anomaly"] == SILENT  # a NaN loss, and finite gradients


def test_the_guides_hooks_see_one_fault_of_ten(seen):
    assert column(seen, "hooks") == {"in a module": "alarm"}
    assert len(column(seen, "full hooks")) == 8


def test_the_guides_loss_check_hears_four(seen):
    assert set(column(seen, "loss NaN")) == {
        "log of negative",
        "empty row",
        "in a module",
        "in a tuple",
    }


def test_bisection_needs_a_birth_from_good_numbers(seen):
    told = column(seen, "bisection")
    assert "empty row" not in told
    assert told["masked first"] == "wrong line"
    assert list(told.values()).count("line") == 4


def test_the_tracer_names_every_line(seen):
    assert column(seen, "trace") == dict.fromkeys(set(seen) - {"none"}, "line")


@pytest.mark.parametrize(
    ("rule", "fooled"),
    [
        ("first NaN", {"KL overflow", "masked first"}),
        ("first bad", {"none", "masked first"}),
        ("born of good", {"empty row", "masked first"}),
        ("made worse", set()),
    ],
)
def test_what_fools_a_rule(bench, rule, fooled):
    bench.turn("healthy", hunt=rule)
    readings = bench.sweep("fault", 9)
    assert {r.settings.fault for r in readings if r.verdict != "healthy"} == fooled


def test_the_reading_says_who_was_named(bench):
    assert "named: AddmmBackward0 at _hunted.py" in str(bench.turn("broken"))
    assert "nobody was named" in str(bench.turn("broken", repair=lambda events: -1))
    assert "is accused, and nothing is wrong" in str(
        bench.turn("healthy", hunt="first bad", repair=None)
    )


def without_reach(events):
    rank = lab.RANK.index
    return next((i for i, e in enumerate(events) if rank(e.made) > rank(e.given)), -1)


def last_worse(events):
    rank = lab.RANK.index
    found = [i for i, e in enumerate(events) if e.reaches and rank(e.made) > rank(e.given)]
    return found[-1] if found else -1


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lab.first_nan, "An infinity is as bad as a NaN"),
        (lab.first_bad, "what is healthy must come out as it went in"),
        (lab.born_of_good, "a softmax can make NaN of infinity"),
        (without_reach, "what is lost on the way harms nobody"),
        (last_worse, "the hunt named an innocent event"),
        (lambda events: -1, "the hunt named an innocent event, or none"),
        (lambda events: 0, "the hunt named an innocent event"),
        (lambda events: events[0], "returns int"),
    ],
)
def test_what_only_looks_like_a_rule_is_refused(bench, bad, words):
    result = check(bench, bad)
    assert not result
    assert words in result.hint, result


def test_events_read_like_a_story():
    lines = [str(event) for event in lab.events("empty row")]
    assert "_softmax         line  " in lines[6]
    assert lines[6].endswith("inf -> nan  reaches")
    assert lines[5].endswith("inf -> inf  lost on the way")
    assert lines[4].endswith("ok -> ok")
