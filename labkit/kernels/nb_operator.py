"""The stable negative binomial likelihood as one operator that also returns its slopes.

Letters: `x` count, `mu` expected count, `r` inverse dispersion, p = mu / (mu + r), q = 1 - p,
odds = p / q = mu / r. log P(x) = log_binomial(x, r) + x log p + r log q, and for x = 0 only the
last term is left. So the entries above 0, a third of real counts, are gathered: names with `_i`.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.kernels.stirling import digamma_difference, log_binomial

BLOCK = 24576  # entries per pass: its float64 work fits a 2 MB cache; changes no result
POISSON = 1e30  # a larger r is used as this one; for mu below 1e20 that changes no result
UNDERFLOW = -700.0  # exp of a smaller log r leaves float64, so its excess is added to log P(x)
OVERFLOW = 700.0  # exp of a larger log mu leaves float64; long before it, p is 1


def apply(name: str, x: Tensor, mu: Tensor, r: Tensor) -> Tensor:
    """Run an operator of this file under autograd; `mu` and `r` may be the logarithms.

    Raises:
        ValueError: x requires a gradient.
    """
    if x.requires_grad:
        raise ValueError("x: expected counts without gradient; got requires_grad. Pass x.detach().")
    dtype = result_dtype(x, mu, r)
    slopes = torch.is_grad_enabled() and (mu.requires_grad or r.requires_grad)
    tensors = torch.broadcast_tensors(*(t.to(dtype) for t in (x, mu, r)))
    return NegativeBinomial.apply(getattr(torch.ops.labkit, name), *tensors, slopes)


def result_dtype(*tensors: Tensor) -> torch.dtype:
    """float32, or what the tensors promote to if that is wider."""
    dtype = torch.float32
    for t in tensors:
        dtype = torch.promote_types(dtype, t.dtype)
    return dtype


class NegativeBinomial(torch.autograd.Function):
    """An operator that returns its own slopes: they meet the incoming gradient in backward."""

    @staticmethod
    def forward(ctx, operator: Callable, x: Tensor, mu: Tensor, r: Tensor, slopes: bool) -> Tensor:
        value, *kept = operator(x, mu, r, slopes)
        ctx.save_for_backward(mu, r, *kept)
        return value

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        mu, r, d_mu, d_r = ctx.saved_tensors
        d_mu, d_r = _Slopes.apply(mu, r, d_mu, d_r)
        return None, None, grad * d_mu, grad * d_r, None


class _Slopes(torch.autograd.Function):
    """Ties the slopes to mu and r, so that a second derivative is refused and not taken as 0.

    `once_differentiable` refuses only if the incoming gradient requires one itself.
    """

    @staticmethod
    def forward(ctx, mu: Tensor, r: Tensor, d_mu: Tensor, d_r: Tensor) -> tuple[Tensor, Tensor]:
        return d_mu.view_as(d_mu), d_r.view_as(d_r)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> None:
        raise RuntimeError(
            "nb_log_likelihood: expected one derivative; a second one was asked for. "
            "Take torch.distributions.NegativeBinomial in float64 for it."
        )


def _from_values(x: Tensor, mu: Tensor, r: Tensor, slopes: bool) -> list[Tensor]:
    """One block, 1-d: log P(x), and its slopes in mu and r if asked for."""
    r = r.clamp(max=POISSON)
    odds = (mu.double().sqrt() / r.double().sqrt()).square_()  # NaN if one is negative
    minus_log_q = odds.log1p()
    i, x, mu_i, r_i, odds_i, minus_log_q_i = _above_zero(x, mu, r, odds, minus_log_q)
    log_mass, pieces = _log_mass(x, r_i, odds_i.log_(), minus_log_q_i)
    value = [_join(-r * minus_log_q.to(r.dtype), i, log_mass)]
    if slopes:
        d_log_mu, d_r = _slopes(mu_i, x, r_i, minus_log_q_i, pieces)
        q = (1.0 + odds).reciprocal_()
        value += [_join(-q.to(r.dtype), i, d_log_mu.div_(mu_i))]
        value += [_join(odds.mul_(q).sub_(minus_log_q).to(r.dtype), i, d_r)]
    return value


def _from_logs(x: Tensor, log_mu: Tensor, log_r: Tensor, slopes: bool) -> list[Tensor]:
    """As `_from_values`, with log mu and log r in their place."""
    log_r = log_r.clamp(max=math.log(POISSON))
    log_odds = log_mu.double() - log_r.double()
    minus_log_q = F.softplus(log_odds, threshold=40.0)
    i, x, log_mu_i, log_r_i, log_odds_i, minus_log_q_i = _above_zero(
        x, log_mu, log_r, log_odds, minus_log_q
    )
    held_i = log_r_i.clamp(min=UNDERFLOW)
    lost_i = log_r_i - held_i
    r, r_i = log_r.exp(), held_i.exp()
    log_mass, pieces = _log_mass(x, r_i, log_odds_i, minus_log_q_i)
    log_mass += lost_i  # where r is that small, P(x) is proportional to it
    value = [_join(-r * minus_log_q.to(r.dtype), i, log_mass)]
    if slopes:
        mu_i = (log_mu_i - lost_i).clamp_(max=OVERFLOW).exp_()
        d_log_mu, d_r = _slopes(mu_i, x, r_i, minus_log_q_i, pieces)
        p = (log_odds - minus_log_q).exp_()
        value += [_join(-r * p.to(r.dtype), i, d_log_mu)]
        value += [_join(r * p.sub_(minus_log_q).to(r.dtype), i, d_r.mul_(r_i))]
    return value


def _above_zero(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Where x is not 0, and the values there in float64; NaN for a negative x."""
    i = x.bool().nonzero().squeeze(1)
    x_i, *others_i = (t.index_select(0, i).double() for t in (x, *others))
    return i, x_i.sqrt_().square_(), *others_i


def _log_mass(
    x: Tensor, r: Tensor, log_odds: Tensor, minus_log_q: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    value, pieces = log_binomial(x, r)
    value += (log_odds - minus_log_q).mul_(x)
    value -= r * minus_log_q
    return value, pieces


def _slopes(
    mu: Tensor, x: Tensor, r: Tensor, minus_log_q: Tensor, pieces: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Derivatives of `_log_mass` in log mu and in r; its peak in mu is at x."""
    from_peak = (x - mu).div_(mu + r)
    d_r = digamma_difference(*pieces).sub_(minus_log_q).sub_(from_peak)
    return from_peak.mul_(r), d_r


def _join(at_zero: Tensor, i: Tensor, above_zero: Tensor) -> Tensor:
    return at_zero.index_copy_(0, i, above_zero.to(at_zero.dtype))


def _in_blocks(one_block: Callable) -> Callable:
    def operator(x: Tensor, mu: Tensor, r: Tensor, slopes: bool) -> list[Tensor]:
        parts = zip(*(t.reshape(-1).split(BLOCK) for t in (x, mu, r)), strict=True)
        blocks = zip(*(one_block(*part, slopes) for part in parts), strict=True)
        return [torch.cat(block).reshape(x.shape) for block in blocks]

    return operator


# Registered, so that a traced forward pass shows one node with a name, not the hundred inside.
_LIBRARY = torch.library.Library("labkit", "FRAGMENT")
for name, block in (
    ("nb_log_likelihood", _from_values),
    ("nb_log_likelihood_from_logs", _from_logs),
):
    _LIBRARY.define(f"{name}(Tensor x, Tensor mu, Tensor r, bool slopes) -> Tensor[]")
    _LIBRARY.impl(name, _in_blocks(block), "CompositeExplicitAutograd")
