"""Where dead_clamp dies on both sides, what smooth caps do further out, and what training does."""

import math

import pytest
import torch

from labkit import check
from labkit.bench import Bench
from labkit.failures.dead_clamp import FORMS, recoveries, still, windups

EXACT = 0.0  # of a gradient: the point is that it is zero, not small
SMALL = 1e-5  # 20 nats before the edge: alive, and too small to count beside the other gradients


@pytest.fixture
def bench():
    return Bench("dead_clamp")


@pytest.mark.parametrize("shift", [-60.0, -15.0, 15.0, 60.0])
def test_the_clamp_is_dead_on_both_sides(bench, shift):
    reading = bench.turn(shift=shift)
    assert math.isfinite(reading.value)
    assert reading.verdict == "dead"
    assert (reading.culprit.op, reading.culprit.source) == (
        "ClampBackward1",
        "return value.clamp(low, high)",
    )
    norms = {fate.name: fate.norm for fate in reading.report.parameters}
    dead = {name for name, norm in norms.items() if norm == EXACT}
    assert dead == {"encoder.fc_logvar.weight", "encoder.fc_logvar.bias"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_no_dtype_saves_it(bench, dtype):
    assert bench.turn("broken", dtype=dtype).verdict == "dead"


def test_the_guides_first_clamp_alone_leaves_the_way_home(bench):
    for case in ("broken", "above"):
        assert bench.turn(case, place="sampler").verdict == "healthy"


def test_one_cell_inside_hides_the_others(bench):
    inside = bench.turn(shift=12.0)
    assert inside.verdict == "healthy"
    norms = [_norm(bench.turn(shift=12.0, guard=form)) for form in ("clamp", "straight-through")]
    assert norms[0] < 0.9 * norms[1]


@pytest.mark.parametrize(
    ("form", "shift", "verdict"),
    [
        ("softplus", 15.0, "healthy"),
        ("softplus", -25.0, "vanishing"),
        ("softplus", 60.0, "vanishing"),
        ("softplus", 140.0, "dead"),
        ("tanh", 60.0, "healthy"),
        ("tanh", 95.0, "dead"),
        ("straight-through", 140.0, "healthy"),
        ("inward", 140.0, "healthy"),
        ("inward", -60.0, "healthy"),
    ],
)
def test_a_smooth_cap_is_a_clamp_that_dies_later(bench, form, shift, verdict):
    assert bench.turn(guard=form, shift=shift).verdict == verdict


@pytest.mark.parametrize(
    ("form", "distance"),
    [("softplus", 104.0), ("tanh", 91.0)],
)
def test_where_the_slope_of_a_smooth_cap_is_exactly_zero(form, distance):
    slope = _slope(form, 10.0 + distance)
    assert slope == EXACT
    assert 0 < _slope(form, distance - 20.0) < SMALL


def test_inward_passes_a_gradient_only_towards_the_range():
    logvar = torch.tensor([-12.0, -12.0, 3.0, 3.0, 12.0, 12.0], requires_grad=True)
    out = FORMS["inward"](logvar)
    assert out.tolist() == [-10.0, -10.0, 3.0, 3.0, 10.0, 10.0]
    (grad,) = torch.autograd.grad(out, logvar, torch.tensor([1.0, -1.0] * 3))
    assert grad.tolist() == [0.0, -1.0, 1.0, -1.0, 1.0, 0.0]


def test_the_layer_keeps_every_bit_in_training():
    assert still(steps=20) == ["encoder.fc_logvar.weight", "encoder.fc_logvar.bias"]


def test_softplus_ends_where_the_clamp_does_and_inward_comes_back():
    ends = {name: path[-1] for name, path in recoveries(steps=60).items()}
    assert ends["clamp"] < -42
    assert ends["softplus"] == pytest.approx(ends["clamp"], abs=1e-3)
    assert min(ends["inward"], ends["straight-through"], ends["none"], ends["tanh"]) > -25


def test_straight_through_winds_up_and_inward_does_not():
    losses = {name: sum(path[-10:]) / 10 for name, path in windups().items()}
    assert losses["straight-through"] > losses["inward"] + 10


@pytest.mark.parametrize("form", ["none", "softplus", "tanh", "straight-through"])
def test_what_only_lives_is_told_about_the_direction(form):
    assert "further out" in check("dead_clamp", FORMS[form]).hint


def test_a_small_leak_is_told_about_the_direction():
    result = check("dead_clamp", lambda v: v.clamp(-10, 10) + 0.01 * (v - v.clamp(-10, 10)))
    assert not result


def _norm(reading) -> float:
    norms = {fate.name: fate.norm for fate in reading.report.parameters}
    return norms["encoder.fc_logvar.bias"]


def _slope(form: str, value: float) -> float:
    logvar = torch.tensor(value, requires_grad=True)
    return torch.autograd.grad(FORMS[form](logvar), logvar)[0].item()


def test_from_where_on_tanh_is_one_in_float32():
    assert torch.tanh(torch.tensor([9.010, 9.011])).eq(1).tolist() == [False, True]
