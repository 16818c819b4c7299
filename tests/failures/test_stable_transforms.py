"""The guide's difference of exponentials is another number; which digits each transform keeps."""

import mpmath
import pytest
import torch

from labkit import check
from labkit.bench import Bench
from labkit.failures._transforms import TRANSFORMS, digits, marginals
from labkit.failures.stable_transforms import FORMS, courses

ROUNDED = 1e-12  # of a float64 result, relative; a few roundings of 1e-16, magnified by cancelling
MEANT = {
    "log(a / b)": lambda a, b: mpmath.log(a / b),
    "exp(a) - exp(b)": lambda a, b: mpmath.exp(a) - mpmath.exp(b),
    "log(exp(a) + exp(b))": lambda a, b: mpmath.log(mpmath.exp(a) + mpmath.exp(b)),
    "log(1 + x)": lambda x: mpmath.log(1 + x),
    "exp(x) - 1": lambda x: mpmath.exp(x) - 1,
    "log(1 + exp(x))": lambda x: mpmath.log(1 + mpmath.exp(x)),
    "log(sigmoid(x))": lambda x: -mpmath.log(1 + mpmath.exp(-x)),
}


@pytest.fixture
def bench():
    return Bench("stable_transforms")


@pytest.mark.parametrize(
    ("a", "b", "true", "guides"),
    [(3.0, 1.0, 17.3672551, 0.8646647), (1.0, 3.0, -17.3672551, -0.8646647)],
)
def test_the_guides_difference_is_another_number(a, b, true, guides):
    values = [form(torch.tensor(a), torch.tensor(b)).item() for form in FORMS.values()]
    assert values[0] == pytest.approx(true, rel=1e-6)  # float32
    assert values[1] == pytest.approx(guides, rel=1e-6)
    assert values[2:] == pytest.approx([true, true], rel=1e-6)


def test_its_slope_is_another_too():
    a = torch.tensor(3.0, requires_grad=True)
    slopes = [torch.autograd.grad(form(a, torch.ones(())), a)[0].item() for form in FORMS.values()]
    assert slopes == pytest.approx([20.0855, 0.1353, 20.0855, 20.0855], rel=1e-3)


def test_below_zero_nobody_sees_it(bench):
    assert bench.turn(form="guide").verdict == "healthy"
    assert bench.turn(form="guide", shift=-40.0).verdict == "healthy"


@pytest.mark.parametrize(("shift", "kl"), [(5.0, -2.65), (10.0, -22.3), (80.0, -302.3)])
def test_above_zero_the_kl_is_negative(bench, shift, kl):
    reading = bench.turn(form="guide", shift=shift)
    assert (reading.verdict, reading.culprit.function) == ("wrong", "guide")
    assert reading.value == pytest.approx(kl, rel=0.01)  # the training that made the model decides
    assert reading.reference > 70


def test_a_kl_without_a_floor_lets_the_log_variance_run_away():
    paths = courses(steps=50)
    assert paths["guide"][-1] > 30  # measured 34.7 at step 48, from 22.5
    assert paths["expm1"][-1] < 0


@pytest.mark.parametrize("form", ["plain", "guide", "put back"])
def test_near_zero_only_expm1_keeps_its_digits(bench, form):
    assert bench.turn("cancelled", form=form).verdict == "wrong"
    assert bench.turn(collapse=5.0, form=form).value < 0
    assert bench.turn(collapse=6.0, form="expm1").verdict == "healthy"


def test_what_does_not_fit_overflows_in_every_right_form(bench):
    for form in ("plain", "put back", "expm1"):
        assert bench.turn("overflow", form=form).verdict == "inf"
    assert bench.turn("overflow", form="guide").verdict == "wrong"


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: f"{t.name} at {t.at}")
def test_the_stable_form_is_the_meant_number(transform):
    with mpmath.workdps(60):
        meant = MEANT[transform.name](*map(mpmath.mpf, transform.at))
    numbers = [torch.tensor(x, dtype=torch.float64) for x in transform.at]
    assert transform.stable(*numbers).item() == pytest.approx(float(meant), rel=ROUNDED)


def test_which_digits_are_left():
    found = {
        (t.name, t.at[0]): [digits(t, form) for form in ("plain", "guide")] for t in TRANSFORMS
    }
    assert found["log(a / b)", 2.0] == ["6/7", "7/7"]
    assert found["exp(a) - exp(b)", 3.0] == ["7/7", "0/0"]
    assert found["log(exp(a) + exp(b))", -600.0] == ["inf/nan", "0/0"]
    assert found["log(sigmoid(x))", -110.0] == ["inf/nan", "0/0"]
    assert found["log(1 + x)", 1e-6] == ["1/7", "-"]


def test_two_small_numbers_have_a_good_ratio():
    small = next(t for t in TRANSFORMS if t.name == "log(a / b)" and t.at == (1e-30, 3e-30))
    assert digits(small, "plain") == "7/7"  # the guide says that it may underflow
    assert digits(small, "guide") == "0/0"
    assert digits(small, "stable") == "5/7"  # two logarithms near -69 are subtracted


def test_the_likelihood_of_a_cell_needs_logsumexp():
    assert marginals(4) == {"log(mean(exp(w)))": 0, "logsumexp(w) - log(n)": 64}


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (FORMS["plain"], "Subtract first"),
        (FORMS["put back"], "Subtract first"),
        (FORMS["guide"], "must be put back"),
        (lambda a, b: torch.logaddexp(a, b), "must be put back"),
        (lambda a, b: a - b, "must be put back"),
        (lambda a, b: a.clamp(max=2).exp() - b.exp(), "must be put back"),
    ],
)
def test_what_only_looks_like_a_repair_is_refused(bad, told):
    result = check("stable_transforms", bad)
    assert not result
    assert told in result.hint, result
