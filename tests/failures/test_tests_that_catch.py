"""Which broken model passes which test, and which only looks like a test that catches."""

import pytest
import torch

from labkit import check
from labkit.bench import Bench
from labkit.failures import tests_that_catch as lab

GREEN, RED = "green", "red"


@pytest.fixture
def bench():
    return Bench("tests_that_catch")


@pytest.fixture(scope="module")
def boards():
    return {extremes: lab.lights(extremes) for extremes in lab.EXTREMES}


@pytest.mark.parametrize(
    ("case", "verdict", "op", "harmed"),
    [
        ("broken", "inf", "exp", 4),
        ("NaN gradient", "nan", "SqrtBackward0", 4),
        ("dead head", "dead", "ClampBackward1", 2),
    ],
)
def test_three_broken_models_pass_the_guides_test(bench, case, verdict, op, harmed):
    reading = bench.turn(case)
    assert (reading.verdict, reading.culprit.op) == (verdict, op)
    assert len(reading.report.harmed) == harmed
    assert bench.turn(test="alive").verdict == "healthy"


def test_larger_inputs_do_not_help(bench):
    bench.turn("broken")
    assert {str(reading.verdict) for reading in bench.sweep("large", 4)} == {"inf"}


def test_each_question_catches_what_those_before_do_not(boards):
    reds = {
        test: {fault for fault, seen in boards["inputs"].items() if seen[test] == RED}
        for test in lab.FORMS
    }
    assert reds == {
        "not NaN": set(),
        "finite loss": {"KL overflows"},
        "finite gradients": {"KL overflows", "distance at zero"},
        "alive": {"KL overflows", "distance at zero", "dead head"},
    }


def test_thin_ice_breaks_only_where_heads_are_tried(boards):
    assert set(boards["inputs"]["thin ice"].values()) == {GREEN}
    assert boards["inputs and heads"]["thin ice"] == {
        "not NaN": GREEN,
        "finite loss": RED,
        "finite gradients": RED,
        "alive": RED,
    }


def test_the_good_model_is_green_everywhere(boards):
    assert {light for board in boards.values() for light in board["none"].values()} == {GREEN}


def test_a_million_wakes_a_dead_head():
    gradients, _ = lab.measured("dead head")
    alive = gradients["encoder.fc_logvar.bias"].flatten(1).any(1)
    assert alive.tolist() == [False, False, True, False]  # real cells, 0, a million, a millionth


def test_measuring_leaves_the_model_as_it_was():
    first, second = (lab.measured("none", extremes=lab.EXTREMES[1])[1] for _ in range(2))
    assert torch.equal(first, second)
    assert len(first) == 10


def finite(*found):
    return all(bool(tensor.isfinite().all()) for tensor in found)


def anywhere(gradients, losses):
    return finite(losses, *gradients.values()) and all(bool(g.any()) for g in gradients.values())


def any_parameter(gradients, losses):
    return finite(losses, *gradients.values()) and any(bool(g[0].any()) for g in gradients.values())


def loss_alone(gradients, losses):
    return finite(losses)


def nan_alone(gradients, losses):
    return not any(bool(t.isnan().any()) for t in (losses, *gradients.values()))


def every_entry(gradients, losses):
    return all(bool((g[0] != 0).all()) for g in gradients.values())


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (anywhere, "wake up for an input of a million"),
        (any_parameter, "wake up for an input of a million"),
        (loss_alone, "ask the same of every gradient"),
        (nan_alone, "wake up for an input of a million"),
        (every_entry, "what is healthy must come out as it went in"),
        (lambda gradients, losses: True, "Inf is not NaN"),
        (lambda gradients, losses: losses.isfinite().all(), "returns bool"),
    ],
)
def test_what_only_looks_like_a_test_is_refused(bench, bad, words):
    result = check(bench, bad)
    assert not result
    assert words in result.hint, result


def test_a_good_model_that_is_refused_blames_the_test(bench):
    reading = bench.turn("healthy", repair=every_entry)
    assert reading.verdict == "wrong"
    assert reading.culprit.source == "def every_entry(gradients, losses):"
    assert "red, and the model is good" in str(reading)
