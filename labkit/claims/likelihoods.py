"""What eps takes from the likelihood's gradient, and rounding from the KL."""

from math import expm1

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.claims.entry import Ruling, claim, truth
from labkit.models.likelihood import (
    kl_standard_normal_guide,
    nb_log_likelihood_from_logs,
    nb_log_likelihood_guide,
)


def guide_score(s: Tensor) -> Tensor:
    """The guide's likelihood of a count of 5, mu = softplus(s), r = 1."""
    return nb_log_likelihood_guide(torch.full_like(s, 5.0), F.softplus(s), torch.ones_like(s))


def log_score(s: Tensor) -> Tensor:
    """The same count with s = log mu handed over as it is."""
    return nb_log_likelihood_from_logs(torch.full_like(s, 5.0), s, torch.zeros_like(s))


@claim("D05", english="A gene that is predicted far too low is pulled up.", verdict="false")
def a_low_prediction_is_pulled_up(score=guide_score, start: float = -30.0) -> Ruling:
    """200 steps of SGD from a low start, beside the likelihood from logarithms."""

    def learnt(score) -> tuple[float, float]:
        s = torch.tensor([start], requires_grad=True)
        optimizer, first = torch.optim.SGD([s], 0.1), 0.0
        for step in range(200):
            optimizer.zero_grad()
            (-score(s)).sum().backward()
            first = float(s.grad) if step == 0 else first
            optimizer.step()
        return float(s.detach()), first

    (end, first), (good, pull) = learnt(score), learnt(log_score)
    return truth(end > 0), (
        f"From {start:g}, where mu should be 5, the first gradient is {first:.0e} instead of "
        f"{pull:.0f}, and 200 steps later it is at {end:.2f}; with log mu handed to the likelihood "
        f"mu is {torch.tensor(good).exp():.2f}."
    )


def guide_kl(logvar: Tensor) -> Tensor:
    """The guide's KL of one latent at mu = 0."""
    return kl_standard_normal_guide(torch.zeros_like(logvar)[:, None], logvar[:, None])


def three_terms(logvar: Tensor) -> Tensor:
    """The same, its terms in another order."""
    return 0.5 * (logvar.exp() - 1 - logvar)


def by_expm1(logvar: Tensor) -> Tensor:
    """The accurate order."""
    return 0.5 * (logvar.expm1() - logvar)


@claim(
    "D23",
    english="-0.5 * (1 + logvar - mu² - exp(logvar)) is accurate, and not negative.",
    verdict="false",
)
def the_kl_is_accurate_near_the_prior(kl=guide_kl, dtype: torch.dtype = torch.float32) -> Ruling:
    """logvar = 1e-4, where the truth is logvar²/4; then 2001 points near 0."""
    near = torch.tensor([1e-4], dtype=dtype)
    true = 0.5 * (expm1(float(near)) - float(near))
    value, good = float(kl(near)), float(by_expm1(near))
    line = torch.linspace(-0.01, 0.01, 2001, dtype=dtype)
    negative, other = (int((f(line) < 0).sum()) for f in (kl, three_terms))
    return truth(abs(value / true - 1) < 0.1 and negative == 0), (
        f"At logvar = 1e-4 it gives {abs(value):.1e} where the KL is {true:.1e} (expm1: "
        f"{good:.1e}); of "
        f"2001 points near 0 it makes {negative} negative, and with its terms in another order "
        f"{other}."
    )
