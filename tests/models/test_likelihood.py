"""The likelihood's numbers, against mpmath, laws of probability and published failures."""

import math

import pytest
import torch

from benchmarks.likelihood import (
    errors,
    grid,
    scvi_tools,
    torch_distributions,
    truth,
    truths,
    with_slopes,
)
from labkit.models.likelihood import (
    nb_log_likelihood,
    nb_log_likelihood_from_logs,
    nb_log_likelihood_guide,
)

INF, NAN = math.inf, math.nan
VALUE = 1e-6  # of max(1, |truth|): a few roundings of float32
SLOPE = 1e-5  # of |g|, plus 1e-10: what a gradient step can notice
VALUE_64 = 1e-10  # float64 is limited by x log p, near 1e6 at the edge of the grid
PRINTED = 6e-4  # the failures were published with three decimals
ROUNDED = 1e-6  # one float32 rounding of numbers near 1


def nb(x, mu, r, form=nb_log_likelihood, dtype=torch.float32):
    """Value and the two gradients as numbers."""
    x, mu, r = (torch.tensor(v, dtype=dtype) for v in (x, mu, r))
    mu.requires_grad_()
    r.requires_grad_()
    value = form(x, mu, r)
    return value.item(), *(g.item() for g in torch.autograd.grad(value, (mu, r)))


def logs(tensors):
    x, mu, r = tensors
    return x, mu.log(), r.log()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("form", [nb_log_likelihood, nb_log_likelihood_from_logs])
def test_value_and_gradients_are_exact_over_the_whole_range(form, dtype):
    of_logs = form is nb_log_likelihood_from_logs
    inputs = logs(grid(dtype)) if of_logs else grid(dtype)
    worst = errors(with_slopes(form, *inputs, of_logs), truths(*inputs, of_logs)).amax(0)
    assert worst[0] <= (VALUE if dtype == torch.float32 else VALUE_64)
    assert worst[1:].max() <= SLOPE


def test_points_off_the_grid_are_as_exact():
    dice = torch.Generator().manual_seed(0)
    power = torch.rand(500, 3, generator=dice, dtype=torch.float64)
    x = (10 ** (5 * power[:, 0])).round()
    inputs = (
        x.float(),
        (10 ** (14 * power[:, 1] - 8)).float(),
        (10 ** (14 * power[:, 2] - 4)).float(),
    )
    worst = errors(with_slopes(nb_log_likelihood, *inputs), truths(*inputs)).amax(0)
    assert worst[0] <= VALUE
    assert worst[1:].max() <= SLOPE


def test_published_failures_are_real_and_not_ours():
    x = mu = torch.tensor(5.0)
    r = torch.tensor(1e7)
    assert truth(5.0, 5.0, 1e7)[0] == pytest.approx(-1.740, abs=PRINTED)
    assert scvi_tools(x, mu, r).item() == pytest.approx(-4.787, abs=PRINTED)
    assert torch_distributions(x, mu, r).item() == pytest.approx(2.457, abs=PRINTED)
    assert nb_log_likelihood(x, mu, r).item() == pytest.approx(-1.740, abs=PRINTED)


@pytest.mark.parametrize(
    ("log10_r", "published"),
    [(0, -2.3150), (4, -1.7138), (6, -2.0662), (7, -0.0666), (8, -54.9744)],
)
def test_the_guides_form_turns_to_noise_as_r_grows(log10_r, published):
    x, mu, r = (torch.tensor(v) for v in (3.0, 2.0, 10.0**log10_r))
    assert nb_log_likelihood_guide(x, mu, r).item() == pytest.approx(published, abs=1e-4)


def test_the_guides_form_edits_bad_input_and_stays_silent():
    score = lambda x, r: nb(x, 2.0, r, nb_log_likelihood_guide)  # noqa: E731
    assert score(-3.0, 1.0)[0] == score(0.0, 1.0)[0]
    value, _, d_r = score(3.0, -5.0)
    assert value == pytest.approx(-19.5193, abs=1e-4)
    assert d_r == 0.0


def test_eps_kills_the_signal_and_logs_keep_it():
    mu = math.exp(-30.0)
    _, d_mu, _ = nb(5.0, mu, 1.0, nb_log_likelihood_guide)
    assert d_mu * mu == pytest.approx(4.68e-5, rel=1e-2)
    assert nb(5.0, -30.0, 0.0, nb_log_likelihood_from_logs)[1] == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("mu", "r"), [(0.3, 0.01), (0.3, 1e10), (5.0, 0.5), (5.0, 1e7), (40.0, 3.0), (40.0, INF)]
)
def test_probabilities_sum_to_1(mu, r):
    x = torch.arange(60_000, dtype=torch.float64)
    mu, r = (torch.tensor(v, dtype=torch.float64) for v in (mu, r))
    assert nb_log_likelihood(x, mu, r).exp().sum().item() == pytest.approx(1.0, abs=1e-10)
    assert nb_log_likelihood(x.float(), mu.float(), r.float()).double().exp().sum().item() == (
        pytest.approx(1.0, abs=ROUNDED)
    )


@pytest.mark.parametrize("r", [1e20, 1e30, 3e38, INF])
def test_a_large_r_is_the_poisson_law(r):
    x = torch.tensor([0.0, 1.0, 3.0, 40.0, 1000.0])
    for mu in (1e-8, 0.5, 30.0, 1e6):
        poisson = x.double() * math.log(mu) - mu - torch.lgamma(x.double() + 1)
        for value in (
            nb_log_likelihood(x, torch.tensor(mu), torch.tensor(r)),
            nb_log_likelihood_from_logs(
                x.double(), torch.tensor(mu).double().log(), torch.tensor(r).log()
            ),
        ):
            error = (value.double() - poisson).abs() / poisson.abs().clamp(min=1)
            assert error.max() <= VALUE


BEYOND = {  # x, mu, r -> value, gradient in mu, gradient in r
    (0.0, 0.0, 1.0): (0.0, -1.0, 0.0),
    (3.0, 0.0, 1.0): (-INF, INF, -7 / 6),
    (3.0, 2.0, 1e30): (-1.7123179, 0.5, 0.0),
    (3.0, 2.0, INF): (-1.7123179, 0.5, 0.0),
    (0.0, 3e38, 1e-45): (0.0, 0.0, -190.87578),
    (0.0, INF, 1.0): (-INF, 0.0, NAN),
}
BEYOND_LOGS = {  # x, log_mu, log_r -> value, gradient in log_mu, gradient in log_r
    (0.0, -INF, 0.0): (0.0, 0.0, 0.0),
    (3.0, -INF, 0.0): (-INF, 3.0, -7 / 6),
    (3.0, -1e5, 0.0): (-3e5, 3.0, -7 / 6),
    (0.0, 1e5, 0.0): (-1e5, -1.0, -99_999.0),
    (3.0, 0.0, 1e5): (-2.7917595, 2.0, 0.0),
    (3.0, 0.0, INF): (-2.7917595, 2.0, 0.0),
    (3.0, 0.0, -1e5): (-1e5 - math.log(3), 0.0, 1.0),
    (3.0, -1e5, -1e5): (-1e5 - math.log(24), 1.5, -0.5),
    (0.0, 1e5, -1e5): (0.0, 0.0, 0.0),
}


@pytest.mark.parametrize(("point", "expected"), BEYOND.items(), ids=str)
def test_what_is_returned_beyond_the_range(point, expected):
    assert nb(*point) == pytest.approx(expected, rel=VALUE, abs=1e-30, nan_ok=True)


@pytest.mark.parametrize(("point", "expected"), BEYOND_LOGS.items(), ids=str)
def test_what_is_returned_beyond_the_range_of_logs(point, expected):
    found = nb(*point, nb_log_likelihood_from_logs)
    assert found == pytest.approx(expected, rel=VALUE, abs=1e-30, nan_ok=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "point",
    [
        *((x, mu, r) for x in (0.0, 3.0) for mu, r in ((NAN, 1.0), (2.0, NAN), (-2.0, 5.0))),
        *((x, 2.0, r) for x in (0.0, 3.0) for r in (-5.0, -0.5, 0.0)),
        *((x, 2.0, 1.0) for x in (NAN, INF, -0.5, -1.0, -3.0)),
    ],
    ids=str,
)
def test_input_outside_the_domain_is_nan_and_never_a_number(point, dtype):
    assert math.isnan(nb(*point, dtype=dtype)[0])


def test_counts_between_integers_continue_the_formula():
    value, d_mu, d_r = nb(2.5, 2.0, 1.0, dtype=torch.float64)
    exact = truth(2.5, 2.0, 1.0)
    assert (value, 2 * d_mu, d_r) == pytest.approx(exact, rel=VALUE_64)


def test_low_precision_costs_no_more_than_its_rounding_of_the_inputs():
    x, mu, r = torch.tensor([3.0, 57.0, 256.0]), torch.tensor(2.3), torch.tensor(1.7)
    for dtype in (torch.float16, torch.bfloat16):
        low = [t.to(dtype) for t in (x, mu, r)]
        value = nb_log_likelihood(*low)
        assert value.dtype == torch.float32
        assert torch.equal(value, nb_log_likelihood(*(t.float() for t in low)))
