"""The KL to a standard normal, against mpmath, near the prior and far from it."""

import math

import mpmath
import pytest
import torch

from labkit.models.likelihood import (
    kl_per_latent,
    kl_standard_normal,
    kl_standard_normal_guide,
)

EXACT = 2e-7  # a rounding or two of float32
NEAR = [s * 10.0**-k for k in range(9) for s in (1, -1)]


def exact(mu, logvar):
    with mpmath.workdps(50):
        mu, logvar = mpmath.mpf(mu), mpmath.mpf(logvar)
        return float((mu**2 + mpmath.expm1(logvar) - logvar) / 2)


@pytest.mark.parametrize("logvar", [*NEAR, 0.0, 5.0, -30.0, 80.0, -1e4])
@pytest.mark.parametrize("mu", [0.0, 1e-6, -0.3, 1e4])
def test_kl_is_exact(mu, logvar):
    mu, logvar = torch.tensor([[mu]]), torch.tensor([[logvar]])
    value = kl_standard_normal(mu, logvar).item()
    assert value == pytest.approx(exact(mu.item(), logvar.item()), rel=EXACT, abs=0)


@pytest.mark.parametrize("logvar", NEAR)
def test_its_gradients_are_exact_near_the_prior(logvar):
    mu = torch.tensor([1e-6], requires_grad=True)
    logvar = torch.tensor([logvar], requires_grad=True)
    d_mu, d_logvar = torch.autograd.grad(kl_standard_normal(mu, logvar), (mu, logvar))
    assert d_mu.item() == mu.item()
    assert d_logvar.item() == pytest.approx(math.expm1(logvar.item()) / 2, rel=EXACT)


def test_the_guides_form_is_0_or_wrong_near_the_prior_where_ours_is_not():
    logvar = torch.tensor([1e-4, -1e-4, 1e-3])[:, None]
    guide = kl_standard_normal_guide(torch.zeros(3, 1), logvar)
    assert guide.tolist() == pytest.approx([0.0, 0.0, 2.384e-7], rel=1e-3)
    assert kl_standard_normal(torch.zeros(3, 1), logvar).tolist() == pytest.approx(
        [2.5e-9, 2.5e-9, 2.501e-7], rel=1e-3
    )


def test_it_is_nowhere_negative():
    logvar = torch.linspace(-0.01, 0.01, 20_001)[:, None]
    assert (kl_standard_normal(torch.zeros_like(logvar), logvar) >= 0).all()


def test_both_forms_agree_away_from_the_prior():
    dice = torch.Generator().manual_seed(0)
    mu, logvar = torch.randn(2, 50, 8, generator=dice)
    whole = kl_standard_normal(mu, logvar)
    assert torch.allclose(whole, kl_standard_normal_guide(mu, logvar), rtol=1e-5)
    assert torch.allclose(whole, kl_per_latent(mu, logvar).sum(-1), rtol=EXACT)
    normals = torch.distributions.Normal(mu, (logvar / 2).exp()), torch.distributions.Normal(0, 1)
    assert torch.allclose(whole, torch.distributions.kl_divergence(*normals).sum(-1), rtol=1e-5)


def test_bad_input_is_never_hidden_and_an_overflow_is_inf():
    mu, nan = torch.zeros(3, 2), math.nan
    logvar = torch.tensor([[nan, 0.0], [math.inf, 0.0], [89.5, 0.0]])
    value = kl_standard_normal(mu, logvar)
    assert value[:2].isnan().all()
    assert value[2].isposinf()
    assert kl_standard_normal(logvar, mu)[0].isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_shapes_and_autocast(dtype):
    mu, logvar = torch.full((4, 3), 0.5, dtype=dtype), torch.zeros(4, 3, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = kl_standard_normal(mu, logvar)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert value.tolist() == [0.375] * 4
    assert kl_standard_normal(mu[:0], logvar[:0]).shape == (0,)


def test_gradcheck_twice():
    mu = torch.tensor([[0.3, -1.0]], dtype=torch.float64, requires_grad=True)
    logvar = torch.tensor([[0.1, -2.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(kl_standard_normal, (mu, logvar))
    assert torch.autograd.gradgradcheck(kl_standard_normal, (mu, logvar))
