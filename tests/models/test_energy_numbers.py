"""Energy distance against closed forms, the packages that people use, and the guide."""

import math

import pytest
import torch
from clouds import DOUBLE, VALUE, M, X, Y, randn
from scipy import special, stats
from scipy.spatial.distance import cdist
from torch import Tensor

from labkit.models.energy import (
    energy_distance,
    energy_distance_guide,
    energy_distance_half,
    energy_distance_squared,
)

SIGMAS = 4.5  # of a mean over draws: once in 100 000 seeds


def mean_norm(d: int, shift: float, scale: float) -> float:
    """E|z| for z normal in d dimensions with mean of length `shift` and this standard deviation."""
    ratio = math.exp(special.gammaln((d + 1) / 2) - special.gammaln(d / 2))
    return scale * math.sqrt(2) * ratio * special.hyp1f1(-0.5, d / 2, -(shift**2) / scale**2 / 2)


@pytest.mark.parametrize(("d", "shift", "sigma"), [(1, 0.5, 1.0), (5, 0.0, 1.5), (32, 1.0, 0.8)])
def test_the_closed_form_of_gaussians(d, shift, sigma):
    rows, draws = 60, 300
    z = randn(draws, 2, rows, d, seed=d, dtype=torch.float64)
    centre = shift * torch.eye(d, dtype=torch.float64)[0]
    found = torch.stack([energy_distance(x, sigma * y + centre) for x, y in z])
    cross = mean_norm(d, shift, math.sqrt(1 + sigma**2))
    want = 2 * cross - (1 + sigma) * mean_norm(d, 0.0, math.sqrt(2))
    assert abs(found.mean() - want) <= SIGMAS * found.std() / draws**0.5


def test_only_the_v_statistic_is_biased():
    rows, draws = 16, 400
    pairs = randn(draws, 2, rows, 4, seed=9, dtype=torch.float64)
    plain = torch.stack([energy_distance(x, y) for x, y in pairs])
    biased = torch.stack([energy_distance(x, y, biased=True) for x, y in pairs])
    error = SIGMAS * plain.std() / draws**0.5
    assert abs(plain.mean()) <= error
    assert abs(biased.mean() - 2 / rows * mean_norm(4, 0.0, math.sqrt(2))) <= error
    assert (biased >= 0).all()
    assert 0.3 < (plain < 0).double().mean() < 0.7  # take no root of it


def test_the_number_of_pertpy():
    x, y = X.numpy(), Y.numpy()  # its Edistance: means of whole distance matrices
    want = 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()
    assert abs(float(energy_distance(X, Y, biased=True)) - want) <= VALUE * cdist(x, y).mean()


def test_the_number_of_scperturb():
    x, y = X.numpy(), Y.numpy()  # its edist: squared, within sums over n (n - 1)
    within = [cdist(s, s, "sqeuclidean").sum() / len(s) / (len(s) - 1) for s in (x, y)]
    want = 2 * cdist(x, y, "sqeuclidean").mean() - sum(within)
    torch.testing.assert_close(float(energy_distance_squared(X, Y)), want, rtol=1e-6, atol=0)


def test_the_number_of_scipy():
    x, y = X[:, :1], Y[:, :1]
    want = stats.energy_distance(x[:, 0].numpy(), y[:, 0].numpy()) ** 2
    assert abs(float(energy_distance(x, y, biased=True)) - want) <= VALUE * cdist(x, y).mean()


def test_the_number_of_geomloss():
    """Its energy loss: half of the V-statistic, squares clamped at 1e-8."""

    def mean(a: Tensor, b: Tensor) -> Tensor:
        squares = a.square().sum(1, keepdim=True) - 2 * a @ b.t() + b.square().sum(1)
        return squares.clamp_min(1e-8).sqrt().mean()

    x, y = X.double(), Y.double()
    want = mean(x, y) - mean(x, x) / 2 - mean(y, y) / 2
    floor = 1e-4  # its distance of a row to itself, in two terms of weight 1/2 and 1/n
    torch.testing.assert_close(energy_distance_half(x, y), want, rtol=0, atol=floor / M)


def test_squared_distances_are_blind_to_spread():
    x = randn(400, 5, seed=1, dtype=torch.float64)
    x -= x.mean(0)
    assert abs(energy_distance_squared(x, 3 * x, biased=True)) < DOUBLE
    assert energy_distance(x, 3 * x) > 1


def test_squared_distances_hold_far_from_the_origin():
    near, far = energy_distance_squared(X, Y), energy_distance_squared(X + 1e5, Y + 1e5)
    shifted = energy_distance_squared((X + 1e5).double(), (Y + 1e5).double())
    torch.testing.assert_close(far.double(), shifted, rtol=1e-6, atol=0)
    torch.testing.assert_close(far, near, rtol=1e-2, atol=0)  # 1e5 + x keeps 2 decimals


class TestTheGuide:
    """Its form is right on paper, and kept as the broken one."""

    def test_agrees_where_nothing_cancels(self):
        x, y = X.double(), Y.double()
        want = energy_distance(x, y, biased=True)
        noise = 1e-7  # the root of what rounding leaves on the diagonal
        for chunk in (7, 100_000):
            got = energy_distance_guide(x, y, chunk=chunk)
            torch.testing.assert_close(got, want, rtol=0, atol=noise)

    def test_has_a_fine_value_and_gradients_that_are_nan(self):
        x = X.clone().requires_grad_()
        value = energy_distance_guide(x, Y)
        value.backward()
        assert value.isfinite()
        assert not x.grad.isfinite().all()

    def test_loses_its_digits_far_from_the_origin(self):
        want = energy_distance(X.double(), Y.double(), biased=True)
        assert abs(energy_distance_guide(X + 1e4, Y + 1e4) - want) > 0.1 * want

    def test_overflows_at_half_the_exponents(self):
        assert not energy_distance_guide(2e19 * X, 2e19 * Y).isfinite()
        scaled = energy_distance(2e19 * X, 2e19 * Y) / 2e19
        torch.testing.assert_close(scaled, energy_distance(X, Y), rtol=1e-4, atol=0)
