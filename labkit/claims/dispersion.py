"""The negative binomial's inverse dispersion r: too small, too large (guide, 2)."""

from math import exp, lgamma, log, log1p

import torch
import torch.nn.functional as F

from labkit.claims.entry import Ruling, claim, protection, truth
from labkit.claims.subjects import (
    SoftplusDecoder,
    error_of,
    force,
    loss_of,
    name,
    slope,
    spoilt_gradients,
    vae,
)
from labkit.models.likelihood import nb_log_likelihood, nb_log_likelihood_guide

EPS = 1e-8  # the guide's
INF = float("inf")


@claim(
    "G46",
    chinese="log_p异常",
    english="A tiny r makes log p abnormal, and then all parameters NaN.",
    where="2 VAE path, H to I to F",
    verdict="false",
)
def a_tiny_r_makes_all_parameters_nan(bias: float = -30.0) -> Ruling:
    """The guide's decoder and likelihood on real cells, fc_r forced down to a bias."""
    model = vae(SoftplusDecoder)
    force(model.decoder.fc_r, bias)
    r = float(F.softplus(torch.tensor(bias))) + EPS
    loss = loss_of(model, form="guide")
    loss.backward()
    bad = spoilt_gradients(model)
    total = len(list(model.parameters()))
    pull = float(model.decoder.fc_r.bias.grad.norm())
    healthy = float(loss_of(vae(SoftplusDecoder), form="guide").detach())
    return truth(len(bad) == total, sometimes=bool(bad)), (
        f"With r = {r:.0e} the loss is {float(loss.detach()):.0f} "
        f"(healthy {healthy:.0f}), and NaN or Inf is in the gradients of {len(bad)} of {total} "
        f"parameters; the pull on r is {pull:.1g}."
    )


@claim(
    "G51",
    chinese="nb_log_likelihood: clamp r到>eps, x到>=0",
    english="Clamping r > eps and x >= 0 in nb_log_likelihood validates its input.",
    where="2 VAE guard 3; 3.1 layer 2",
    verdict="incomplete guard",
)
def clamping_validates_the_input(eps: float = EPS) -> Ruling:
    """Bad counts and a bad r, at mu = 2: what the guide's likelihood makes of them."""

    def score(x: float, r: float) -> float:
        return float(nb_log_likelihood_guide(*torch.tensor([x, 2.0, r]), eps=eps))

    negative, zero, under = score(-3.0, 1.0), score(0.0, 1.0), score(3.0, -5.0)
    nan, inf = score(torch.nan, 1.0), score(INF, 1.0)
    refused = error_of(lambda: score(-3.0, 1.0))
    finite = abs(negative) < INF and abs(under) < INF
    return protection(stops=finite, leaks=not refused or nan != nan), (
        f"It edits: a count of -3 scores {negative:.3f}, as a count of 0 ({zero:.3f}), and r = -5 "
        f"scores {under:.1f}; nothing is refused, and NaN and Inf pass ({nan:g}, {inf:g})."
    )


@claim(
    "G52",
    chinese="DecoderNB: r添加eps下界",
    english="eps as a lower bound of r in the decoder protects the likelihood.",
    where="2 VAE guard 4",
    verdict="incomplete guard",
)
def eps_below_r_protects_the_likelihood(dtype: torch.dtype = torch.float32) -> Ruling:
    """A count of 3 at mu = 2 over log r: the guide's score with r + eps, and the exact one."""

    def score(log_r: float) -> float:
        x, mu, a = (torch.tensor(v, dtype=dtype) for v in (3.0, 2.0, log_r))
        return float(nb_log_likelihood_guide(x, mu, a.exp() + EPS))

    low, wrong, none = score(-30.0), score(16.0), score(89.0)
    exact = float(nb_log_likelihood(*torch.tensor([3.0, 2.0, exp(16)], dtype=torch.float64)))
    leaks = none != none or abs(wrong - exact) > 0.01
    return protection(stops=abs(low) < INF, leaks=leaks), (
        f"It stops r = 0 ({low:.1f}, finite), and not the other end: at log r = 16 the score is "
        f"{wrong:.2f} where it is {exact:.2f}, and at log r = 89 it is {none:g} in {name(dtype)}."
    )


def difference(r: torch.Tensor) -> torch.Tensor:
    """The guide's likelihood of a count of 3 at mu = 2, a function of r."""
    return nb_log_likelihood_guide(torch.tensor(3.0, dtype=r.dtype), torch.full_like(r, 2.0), r)


@claim(
    "D04",
    english="lgamma(x + r) - lgamma(r) is accurate for every r.",
    verdict="false",
)
def a_difference_of_lgammas_is_accurate(dtype: torch.dtype = torch.float32) -> Ruling:
    """The score of a count of 3 at mu = 2 for r from 1 to 1e8, and its slope, beside the exact."""
    exact = {r: _exact(r) for r in (1.0, 1e4, 1e7, 1e8)}
    got = {r: slope(difference, r, dtype) for r in exact}
    worst = max(abs(got[r][0] - exact[r]) for r in exact)
    slope64, true = slope(difference, 1e8, torch.float64)[1], _exact_slope(1e8)
    return truth(worst < 1e-3, sometimes=abs(got[1.0][0] - exact[1.0]) < 1e-3 and worst < 0.1), (
        f"In {name(dtype)} the score is {got[1e4][0]:.4f} at r = 1e4, {got[1e7][0]:.2f} at 1e7 and "
        f"{got[1e8][0]:.0f} at 1e8, where it is {exact[1e8]:.3f}; in float64 the value is right, "
        f"but at r = 1e8 its slope is {slope64:.0e} where it is {true:.0e}."
    )


def _exact(r: float, x: int = 3, mu: float = 2.0) -> float:
    """The log-probability as a product of x factors, in which nothing cancels."""
    rising = sum(log1p(k / r) for k in range(x))
    return rising - lgamma(x + 1) + x * log(mu) - (x + r) * log1p(mu / r)


def _exact_slope(r: float, x: int = 3, mu: float = 2.0) -> float:
    rising = sum(-k / (r * (r + k)) for k in range(x))
    return rising - log1p(mu / r) + (x + r) * mu / (r * (r + mu))
