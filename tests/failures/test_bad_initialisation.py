"""How depth, fan and head decide what is too small and too large; what no loss curve tells."""

import io
from contextlib import redirect_stdout
from math import sqrt

import pytest
import torch

from labkit import check
from labkit.bench import Bench
from labkit.failures._batch import batch
from labkit.failures.bad_initialisation import (
    CASES,
    FORMS,
    Settings,
    copied,
    loss,
    moved,
    started,
    trained,
)
from labkit.guide import check_gradient_flow

SAMPLING = 0.02  # of a standard deviation that is estimated from 262144 draws: 0.14 % expected
SAME_LOSS = 0.01  # losses of the plateau differ by 0.1 %, those of a model that learns by 5 %


@pytest.fixture
def bench():
    return Bench("bad_initialisation")


def test_the_gain_of_a_linear_layer_that_nobody_chose_is_the_root_of_a_sixth():
    torch.manual_seed(0)
    layer = torch.nn.Linear(512, 512)
    assert float(layer.weight.detach().std()) * sqrt(512 / 2) == pytest.approx(
        sqrt(1 / 6), rel=SAMPLING
    )


@pytest.mark.parametrize(
    ("depth", "low", "high"), [(2, 0.1, 3.0), (8, 0.3, 1.2), (16, 0.6, 1.1), (24, 0.7, 1.1)]
)
def test_the_range_that_works_is_narrower_the_deeper(bench, depth, low, high):
    for gain in (low, high):
        assert bench.turn("broken", depth=depth, gain=gain).verdict == "healthy"
    if depth > 2:
        assert bench.turn("broken", depth=depth, gain=low - 0.1).verdict == "vanishing"
        assert bench.turn("broken", depth=depth, gain=high + 0.1).verdict in ("exploding", "inf")


def test_the_signal_is_the_gain_to_the_power_of_the_depth(bench):
    def scale(depth: float) -> float:
        return float(bench.turn("broken", depth=depth).note.rpartition(" ")[2])

    ratio = scale(16) / scale(8)
    assert ratio == pytest.approx(0.4**8, rel=1.0), "one digit, and the luck of one draw"


def test_too_large_ends_in_the_exponential_of_a_head(bench):
    culprit = bench.turn("large").culprit
    assert (culprit.op, culprit.function) == ("exp", "sample_z")


def test_the_culprit_of_a_start_that_is_too_small_is_the_layer(bench):
    assert "F.linear" in bench.turn("broken").culprit.source


def test_xavier_and_the_wrong_fan_are_refused_with_the_fan(bench):
    for name in ("xavier", "fan_out"):
        result = check(bench, FORMS[name])
        assert not result
        assert "noise.shape[1]" in result.hint
    assert not check(bench, lambda noise, gain: noise / sqrt(noise.shape[1]))


def test_equal_units_are_one_unit_and_every_gradient_is_alive(bench):
    reading = bench.turn("equal")
    assert "copies of one" in reading.culprit.remark
    assert [fate.name for fate in reading.report.harmed] == [
        f"encoder.input_layer.{place}.noise" for place in (0, 2, 4)
    ], "the random heads tell the units of the last hidden layer apart"
    assert all(fate.norm > 0 for fate in reading.report.parameters)


def test_a_relu_that_is_off_for_every_cell_is_dead(bench):
    reading = bench.turn("dead")
    assert reading.culprit.op == "ReluBackward0"
    assert bench.turn("healthy", bias=-0.25).verdict == "healthy"


@pytest.mark.parametrize(
    ("knob", "value", "verdict"),
    [
        ("logvar", -100.0, "healthy"),
        ("logvar", 6.0, "healthy"),
        ("logvar", 8.0, "exploding"),
        ("logvar", 40.0, "inf"),
        ("logvar", 200.0, "nan"),
        ("log_r", -20.0, "vanishing"),
        ("log_r", -13.0, "healthy"),
        ("log_r", 16.0, "healthy"),
        ("log_r", 20.0, "vanishing"),
    ],
)
def test_where_a_head_may_start(bench, knob, value, verdict):
    assert bench.turn("healthy", **{knob: value}).verdict == verdict


def test_three_illnesses_have_one_plateau():
    ends = {case: trained(CASES[case]) for case in ("broken", "equal", "dead", "repaired")}
    last = {case: losses[-1] for case, (losses, _) in ends.items()}
    for case in ("equal", "dead"):
        assert last[case] == pytest.approx(last["broken"], rel=SAME_LOSS)
    assert last["repaired"] < last["broken"] * (1 - 2 * SAME_LOSS)
    assert copied(ends["equal"][1]) == [True, True, True, False]
    assert moved(CASES["dead"], ends["dead"][1]) == 0.0
    assert moved(CASES["broken"], ends["broken"][1]) > 0.0, "Adam divides a small gradient away"


def flow(model) -> list[str]:
    with redirect_stdout(io.StringIO()):
        return [str(line) for line in check_gradient_flow(model)]


def test_before_a_backward_no_check_of_gradients_can_tell():
    healthy, equal = (started(settings, FORMS["he"]) for settings in (Settings(), CASES["equal"]))
    assert all(p.grad is None for model in (healthy, equal) for p in model.parameters())
    cells = batch()
    assert flow(healthy) == flow(equal)
    loss(equal, cells).backward()
    assert all("gradient normal" in line for line in flow(equal)[:4]), "copies pass as normal"
