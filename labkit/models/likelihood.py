"""Negative binomial log-likelihood of counts: the guide's form and the stable one.

Letters: `x` count of one gene in one cell, `mu` its expected count, `r` the inverse
dispersion (variance is mu + mu²/r; r to infinity is the Poisson law).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def nb_log_likelihood(x: Tensor, mu: Tensor, r: Tensor) -> Tensor:
    """Log-probability of counts under a negative binomial, one value per entry.

    Args:
        x: counts, shape (cell, gene) or anything that broadcasts; integers >= 0.
        mu: expected counts, > 0.
        r: inverse dispersion, > 0, per entry or per gene.

    Returns:
        Nats per entry, in the dtype of `x`, `mu` and `r` together, float32 at least.
    """
    return nb_log_likelihood_from_logs(x, mu.double().log(), r.double().log()).to(_dtype(x, mu, r))


def nb_log_likelihood_from_logs(x: Tensor, log_mu: Tensor, log_r: Tensor) -> Tensor:
    """As `nb_log_likelihood`, from log mu and log r: what a decoder should hand over.

    Args:
        x: counts, integers >= 0.
        log_mu: log of the expected counts.
        log_r: log of the inverse dispersion, per entry or per gene.

    Returns:
        Nats per entry, in the dtype of the inputs together, float32 at least.
    """
    dtype = _dtype(x, log_mu, log_r)
    x, log_mu, log_r = x.double(), log_mu.double(), log_r.double()
    r = log_r.exp()
    gammas = torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1)
    logits = log_mu - log_r
    return (gammas + x * F.logsigmoid(logits) + r * F.logsigmoid(-logits)).to(dtype)


def nb_log_likelihood_guide(x: Tensor, mu: Tensor, r: Tensor, eps: float = 1e-8) -> Tensor:
    """The guide's form, kept as the broken one.

    Args:
        x: counts; negative ones are scored as 0.
        mu: expected counts.
        r: inverse dispersion; below `eps` it is edited to `eps` and gets no gradient.
        eps: floor of r and offset inside each log; it biases every mu near or under it.

    Returns:
        Nats per entry, in the dtype of the inputs.
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
        Nats per entry, in the dtype of the inputs, float32 at least.
    """
    wide_mu, wide_logvar = mu.double(), logvar.double()
    return (0.5 * (wide_mu.square() + (wide_logvar.expm1() - wide_logvar))).to(_dtype(mu, logvar))


def kl_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence from N(mu, exp(logvar)) to N(0, 1) per cell: summed over latent.

    Args:
        mu: posterior mean, shape (cell, latent).
        logvar: log of the posterior variance, same shape.

    Returns:
        Nats per cell, shape (cell,).
    """
    return kl_per_latent(mu, logvar).sum(-1)


def kl_standard_normal_guide(mu: Tensor, logvar: Tensor) -> Tensor:
    """The guide's form of `kl_standard_normal`: subtracts numbers near 1.

    Args:
        mu: posterior mean, shape (cell, latent).
        logvar: log of the posterior variance, same shape.

    Returns:
        Nats per cell, shape (cell,).
    """
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(-1)


def _dtype(*tensors: Tensor) -> torch.dtype:
    """Results are float32 or wider: half precision cannot hold a log-likelihood."""
    dtype = torch.float32
    for t in tensors:
        dtype = torch.promote_types(dtype, t.dtype)
    return dtype
