"""What holds for every failure mode: its cases, its culprit line, its knobs over their range."""

import inspect
import math

import pytest

from labkit.bench import Bench
from labkit.failures import names
from labkit.probes.verdict import Verdict

GRID = 9  # stops along each knob


@pytest.fixture(params=names())
def bench(request):
    return Bench(request.param)


def test_it_says_what_it_is(bench):
    failure = bench.failure
    assert failure.TITLE
    assert failure.NICKNAME
    assert failure.SYMPTOM.endswith(".")
    assert failure.CLAIM.quote
    assert failure.CLAIM.translation
    assert failure.SOURCES
    assert set(bench.knobs[failure.FORM_KNOB].options) == set(failure.FORMS)
    assert {"healthy", "broken", "repaired"} <= set(failure.CASES)


def test_healthy_is_healthy(bench):
    reading = bench.turn("healthy")
    assert reading.verdict == Verdict.HEALTHY, str(reading)
    assert reading.culprit is None


def test_broken_names_a_line_that_exists(bench):
    reading = bench.turn("broken")
    assert reading.verdict != Verdict.HEALTHY
    path = dict(reading.report.files)[reading.culprit.file]
    with open(path) as source:
        line = source.read().splitlines()[reading.culprit.line - 1]
    assert line.strip() == reading.culprit.source


def test_repaired_is_healthy_and_every_gradient_lives(bench):
    reading = bench.turn("repaired")
    assert reading.verdict == Verdict.HEALTHY, str(reading)
    assert not reading.report.harmed
    assert math.isfinite(reading.value)


def test_the_repair_does_not_change_a_healthy_run(bench):
    form = getattr(bench.failure.CASES["repaired"], bench.failure.FORM_KNOB)
    plain = bench.turn("healthy")
    guarded = bench.turn("healthy", **{bench.failure.FORM_KNOB: form})
    assert guarded.value == plain.value


def test_a_turn_is_reproducible_to_the_bit(bench):
    first, second = bench.turn("broken"), bench.turn("broken")
    assert str(first) == str(second)
    assert repr(first.report.parameters) == repr(second.report.parameters)


def test_every_knob_can_be_swept_over_its_range(bench):
    for knob in bench.knobs:
        for case in ("healthy", "repaired"):
            bench.turn(case)
            for reading in bench.sweep(knob, GRID):
                assert reading.verdict in Verdict
                assert (reading.culprit is None) == (reading.verdict == Verdict.HEALTHY)


def test_the_library_form_given_as_a_repair_does_what_the_knob_does(bench):
    form = getattr(bench.failure.CASES["repaired"], bench.failure.FORM_KNOB)
    by_hand = bench.turn("broken", repair=bench.failure.FORMS[form])
    by_knob = bench.turn("repaired", repair=None)
    assert by_hand.value == by_knob.value
    assert by_hand.verdict == by_knob.verdict


def test_each_form_is_short_enough_to_read(bench):
    for form in bench.failure.FORMS.values():
        assert len(inspect.getsource(form).splitlines()) <= 10
