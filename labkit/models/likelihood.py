"""Negative binomial log-likelihood of counts and the KL of a latent Gaussian: stable, and broken.

Letters: `x` count of one gene in one cell, `mu` its expected count, `r` inverse dispersion
(the variance is mu + mu²/r; r to infinity is the Poisson law). For the KL `mu` and `logvar` are
the mean and the log-variance of q(z | x).
"""

import torch
from torch import Tensor

from labkit.kernels.nb_operator import apply, result_dtype


def nb_log_likelihood(x: Tensor, mu: Tensor, r: Tensor) -> Tensor:
    """Log-probability of counts under a negative binomial, one value per entry, in nats.

    Args:
        x: counts >= 0, shape (cell, gene) or any that broadcasts with the others. A value that
            is not an integer gets the continuous extension. No gradient.
        mu: expected counts, >= 0.
        r: inverse dispersion, > 0; per entry or per gene. Inf is the Poisson law.

    Returns:
        Shape of the three inputs broadcast; float64 if one of them is, else float32: half
        precision holds neither a count of 2049 nor a log-likelihood. Gradients come back in
        the inputs' own dtypes.

    Raises:
        ValueError: x requires a gradient.

    Breaks when:
        A negative or NaN input, or r = 0: NaN at that entry, in every dtype.
        mu = 0 and x > 0: -Inf, and +Inf as gradient in mu. With x = 0: 0, and -1.
        mu above 1e20 and r above 1e30 at once: scored as r = 1e30.
        float32, a slope in mu or r above 3.4e38 (mu or r below 1e-38): Inf as gradient.
        A second derivative, or torch.func: RuntimeError; the first names another form.

    Source: Abramowitz and Stegun 1964, 6.1.41 and 6.3.18, for the differences of gammas.
    """
    return apply("nb_log_likelihood", x, mu, r)


def nb_log_likelihood_from_logs(x: Tensor, log_mu: Tensor, log_r: Tensor) -> Tensor:
    """As `nb_log_likelihood`, from log mu and log r: what a decoder should hand over.

    Args:
        x: counts >= 0. No gradient.
        log_mu: log of the expected counts; -Inf where they are 0.
        log_r: log of the inverse dispersion, per entry or per gene; Inf is the Poisson law.

    Returns:
        As `nb_log_likelihood`. Value and gradients are finite for all `log_mu` and `log_r` of
        size up to 8e37 for which the truth fits the dtype.

    Raises:
        ValueError: x requires a gradient.

    Breaks when:
        A negative x, a NaN, or log_r = -Inf: NaN at that entry.
        log_mu = -Inf and x > 0: -Inf, but the gradient in log_mu is x. With x = 0: 0, and 0.
        log_mu above 46 and log_r above 69 at once: scored as log_r = 69.
        A second derivative, or torch.func: RuntimeError.
    """
    return apply("nb_log_likelihood_from_logs", x, log_mu, log_r)


def nb_log_likelihood_guide(x: Tensor, mu: Tensor, r: Tensor, eps: float = 1e-8) -> Tensor:
    """The guide's form of `nb_log_likelihood`, kept as the broken one.

    Args:
        x: counts; negative ones are scored as 0.
        mu: expected counts.
        r: inverse dispersion; below `eps` it is edited to `eps` and gets no gradient.
        eps: floor of r, and offset inside each log; biases every mu near or under it.

    Returns:
        Nats per entry, in the dtype of the inputs.

    Breaks when:
        r from 1e5, float32: errors of 0.04 and more; from 1e7 the sign can be wrong.
        mu below eps and x > 0: value and gradient of mu = eps, so nothing pulls mu up.
        float16: eps rounds to 0, and log(0) is -Inf.
    """
    r = torch.clamp(r, min=eps)
    x = torch.clamp(x, min=0.0)
    log_r_mu = torch.log(r + mu + eps)
    gammas = torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1)
    return gammas + r * (torch.log(r + eps) - log_r_mu) + x * (torch.log(mu + eps) - log_r_mu)


def kl_per_latent(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence from N(mu, exp(logvar)) to N(0, 1), one value per entry, in nats.

    Args:
        mu: posterior mean, shape (cell, latent).
        logvar: log of the posterior variance, same shape.

    Returns:
        Same shape; float64 if an input is, else float32. Computed in float64: expm1(l) - l
        still cancels near l = 0, to a relative error of 2e-16 / |l|.

    Breaks when:
        logvar > 89.4, float32: Inf, as the truth is past the largest float32.
        logvar = Inf: NaN.

    Source: Kingma and Welling 2014, appendix B.
    """
    wide_mu, wide_logvar = mu.double(), logvar.double()
    kl = 0.5 * (wide_mu.square() + (wide_logvar.expm1() - wide_logvar))
    return kl.to(result_dtype(mu, logvar))


def kl_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence from N(mu, exp(logvar)) to N(0, 1) per cell: `kl_per_latent` summed.

    Args:
        mu: posterior mean, shape (cell, latent).
        logvar: log of the posterior variance, same shape.

    Returns:
        Nats per cell, shape (cell,).
    """
    return kl_per_latent(mu, logvar).sum(-1)


def kl_standard_normal_guide(mu: Tensor, logvar: Tensor) -> Tensor:
    """The guide's form of `kl_standard_normal`: it subtracts numbers near 1.

    Args:
        mu: posterior mean, shape (cell, latent).
        logvar: log of the posterior variance, same shape.

    Returns:
        Nats per cell, shape (cell,).

    Breaks when:
        |logvar| <= 1e-4, float32: exactly 0 where the truth is logvar²/4.
        logvar > 88.72, float32: Inf; the gradient too.
    """
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(-1)
