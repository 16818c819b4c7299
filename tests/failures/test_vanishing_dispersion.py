"""Where vanishing_dispersion is wrong, on both sides, and that a right value proves no gradient."""

import math

import mpmath
import pytest
import torch

from labkit import check
from labkit.bench import Bench
from labkit.failures.vanishing_dispersion import FORMS, _pair, _truth, profile, training

LARGEST = 103.28  # lgamma of the smallest float32 above 0


@pytest.fixture
def bench():
    return Bench("vanishing_dispersion")


def test_lgamma_of_a_small_r_is_positive_and_mild():
    r = torch.tensor([1e-8, 1e-38, 2.0**-149])
    assert torch.lgamma(r).tolist() == pytest.approx([18.4207, 87.4982, LARGEST], abs=0.01)
    assert float(mpmath.loggamma(mpmath.mpf("1e-8"))) == pytest.approx(18.4207, abs=1e-4)


def test_lgamma_of_a_negative_r_is_finite_and_its_poles_are_infinite():
    r = torch.tensor([-0.5, -1.5, -2.5, -1.0, 0.0])
    assert torch.lgamma(r).isnan().sum() == 0
    assert torch.lgamma(r).isinf().tolist() == [False, False, False, True, True]


def test_a_tiny_r_makes_no_nan_but_the_guides_floor_is_dead(bench):
    reading = bench.turn("small")
    assert reading.verdict == "dead"
    assert reading.culprit.op == "ClampBackward1"
    assert {fate.name for fate in reading.report.harmed} == {
        "decoder.fc_r.weight",
        "decoder.fc_r.bias",
    }
    assert reading.value < 0.7 * reading.reference, "the floor flatters the loss"


@pytest.mark.parametrize("likelihood", ["guide", "torch.distributions"])
def test_a_large_r_invents_likelihood(bench, likelihood):
    reading = bench.turn("broken", likelihood=likelihood)
    assert reading.verdict == "wrong"
    assert "against float64" in reading.culprit.remark
    assert not reading.report.harmed
    assert reading.value < reading.reference - 10


def test_the_culprit_is_the_subtraction_of_the_gammas(bench):
    culprit = bench.turn("broken").culprit
    assert (culprit.op, culprit.phase) == ("sub", "forward")
    assert "torch.lgamma(x + r) - torch.lgamma(r)" in culprit.source


def test_the_gradient_is_wrong_before_the_value_is(bench):
    assert bench.turn(likelihood="guide", shift=6.0).verdict == "healthy"
    reading = bench.turn(likelihood="guide", shift=8.0)
    assert reading.verdict == "wrong"
    assert reading.value == pytest.approx(reading.reference, rel=1e-3)
    assert "gradient" in reading.culprit.remark


def test_gammas_in_float64_give_a_right_value_and_a_gradient_of_noise(bench):
    value, slope = _pair(FORMS["float64 gammas"], 12.0)
    truth, true_slope = _truth(12.0)
    assert value == pytest.approx(truth, rel=1e-6)
    assert slope > 1000 * true_slope
    assert bench.turn("broken", likelihood="float64 gammas").verdict == "wrong"


def test_float64_moves_the_edge(bench):
    for form in ("guide", "float64"):
        assert bench.turn(likelihood=form, shift=14.0, dtype="float64").verdict == "healthy"
        assert bench.turn(likelihood=form, shift=20.0, dtype="float64").verdict == "wrong"


@pytest.mark.parametrize("shift", [-100.0, -20.0, 20.0, 90.0])
def test_the_stable_form_is_true_everywhere(shift):
    value, slope = _pair(FORMS["stable"], shift)
    truth, true_slope = _truth(shift)
    assert value == pytest.approx(truth, rel=1e-6)
    assert slope == pytest.approx(true_slope, rel=0.01) or max(slope, true_slope) < 1e-12


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_true_where_nothing_is_large(form):
    x, log_mu, log_r = torch.tensor([0.0, 3.0, 40.0]), torch.tensor(1.0), torch.tensor(0.5)
    mu, r = mpmath.e ** mpmath.mpf(1), mpmath.e ** mpmath.mpf("0.5")
    truth = [
        float(
            mpmath.loggamma(n + r)
            - mpmath.loggamma(r)
            - mpmath.loggamma(n + 1)
            + r * mpmath.log(r / (r + mu))
            + n * mpmath.log(mu / (r + mu))
        )
        for n in (0, 3, 40)
    ]
    assert FORMS[form](x, log_mu, log_r).tolist() == pytest.approx(truth, rel=1e-5)


def test_training_reports_what_it_has_not_earned():
    reported, true = training("guide", steps=40)
    assert min(reported) < min(true) - 100
    honest, twin = training("stable", steps=3)
    assert honest == pytest.approx(twin, rel=1e-6)


def test_the_profile_of_the_truth_settles():
    losses, slopes = profile("truth")
    assert abs(losses[-1] - losses[-3]) < 0.05
    assert slopes[-1] < slopes[6] - 2


@pytest.mark.parametrize(
    "mine",
    [
        FORMS["torch.distributions"],
        FORMS["float64 gammas"],
        lambda x, m, r: FORMS["guide"](x, m, r.clamp(max=12.0)),
        lambda x, m, r: x * m - m.exp() - (x + 1).lgamma() + 0 * r,
    ],
    ids=["torch", "gammas alone", "a clamp", "Poisson"],
)
def test_what_only_looks_like_a_repair_is_refused(mine):
    result = check("vanishing_dispersion", mine)
    assert not result
    assert result.hint


def test_a_right_value_alone_is_told_about_the_gradient():
    result = check("vanishing_dispersion", FORMS["float64 gammas"])
    assert "leave it once" in result.hint
    assert any("gradient of fc_r" in line for line in result.lines)


def test_float64_from_end_to_end_is_an_answer():
    assert check("vanishing_dispersion", FORMS["float64"])
    assert check("vanishing_dispersion", lambda x, m, r: FORMS["guide"](x, m, r.double()).float())
    assert math.isfinite(_truth(90.0)[0])
