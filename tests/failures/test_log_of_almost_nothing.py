"""Where log_of_almost_nothing loses the learning signal, in each dtype, and what brings it back."""

import math

import pytest
import torch

from labkit import check
from labkit.bench import Bench
from labkit.failures.log_of_almost_nothing import FORMS, pull, recovery

EPS = 1e-8
GUIDE = "log(exp + eps)"


@pytest.fixture
def bench():
    return Bench("log_of_almost_nothing")


def test_log_is_nan_below_zero_and_infinite_at_zero():
    x = torch.tensor([-1.0, 0.0, math.inf])
    assert [str(v) for v in x.log().tolist()] == ["nan", "-inf", "inf"]


@pytest.mark.parametrize(
    ("dtype", "log"),
    [("float16", -math.inf), ("bfloat16", -18.375), ("float32", -18.4207), ("float64", -18.4207)],
)
def test_what_the_guides_eps_is_worth_in_each_dtype(dtype, log):
    a = torch.tensor(-1000.0, dtype=getattr(torch, dtype))
    assert FORMS[GUIDE](a).item() == pytest.approx(log, abs=1e-3)


@pytest.mark.parametrize("log10_mu", [-6, -8, -11])
def test_the_pull_fades_as_mu_over_mu_plus_eps(log10_mu):
    a = torch.tensor(log10_mu * math.log(10), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(FORMS[GUIDE](a), a)
    mu = 10.0**log10_mu
    assert slope.item() == pytest.approx(mu / (mu + EPS), rel=1e-9)


def test_broken_vanishes_and_the_loss_is_that_of_the_constant(bench):
    reading = bench.turn("broken")
    assert reading.verdict == "vanishing"
    assert reading.culprit.op == "ExpBackward0"
    assert {fate.name for fate in reading.report.harmed} == {
        "decoder.fc_mu.weight",
        "decoder.fc_mu.bias",
    }
    deeper = bench.turn(shift=-80.0)
    assert deeper.value == pytest.approx(reading.value, rel=1e-6)
    assert reading.value < 0.5 * reading.reference


@pytest.mark.parametrize(
    ("way", "shift", "verdict"),
    [
        (GUIDE, -15.0, "healthy"),
        (GUIDE, -25.0, "wrong"),
        (GUIDE, -120.0, "dead"),
        ("log(clamp)", -18.0, "healthy"),
        ("log(clamp)", -25.0, "dead"),
        ("log(softplus + eps)", -40.0, "vanishing"),
        ("log(exp)", -85.0, "healthy"),
        ("log(exp)", -105.0, "inf"),
        ("log(exp + tiny)", -85.0, "healthy"),
        ("log(exp + tiny)", -120.0, "dead"),
        ("log mu", -120.0, "healthy"),
    ],
)
def test_where_each_way_ends(bench, way, shift, verdict):
    assert bench.turn("healthy", way=way, shift=shift).verdict == verdict


def test_in_float16_the_guard_is_not_there(bench):
    reading = bench.turn("half")
    assert reading.verdict == "inf"
    assert reading.culprit.op == "log"
    first = bench.turn("half", shift=-7.0)
    assert first.verdict == "nan"
    assert math.isfinite(first.value)
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        assert bench.turn("repaired", dtype=dtype).verdict == "healthy"


def test_the_pull_of_log_mu_is_constant_and_that_of_eps_falls_by_e_per_nat():
    steady, fading = pull("log mu", (-20, -40)), pull(GUIDE, (-30, -40))
    assert steady[0] == pytest.approx(steady[1], abs=0.01)
    assert fading[0] - fading[1] == pytest.approx(10 / math.log(10), abs=0.05)


def test_only_log_mu_comes_back():
    stuck, free = recovery(GUIDE, steps=30), recovery("log mu", steps=30)
    assert stuck[-1] > 0.99 * stuck[0]
    assert free[-1] < 0.6 * free[0]


@pytest.mark.parametrize(
    "mine",
    [
        *(form for way, form in FORMS.items() if way != "log mu"),
        lambda a: (a.exp() + 1e-30).log(),
        lambda a: a.clamp(min=-30.0),
        lambda a: a.exp().log().nan_to_num(neginf=-90.0),
    ],
)
def test_what_only_looks_like_a_repair_is_told_why(mine):
    result = check("log_of_almost_nothing", mine)
    assert not result
    assert result.hint
