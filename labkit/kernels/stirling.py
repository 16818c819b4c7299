"""Differences of log-gamma and of digamma that do not cancel, for counts, in float64.

lgamma(x + r) - lgamma(r) subtracts two numbers near r log r, so at r = 1e7 float32 keeps no
correct digit and float64 has lost half of its own. Here the large parts are subtracted on paper.
Eight is added to each argument of gamma first: there Stirling's series holds for every r > 0.

Letters: `x` count > 0, `r` inverse dispersion > 0, both float64 of shape (n,).
"""

import math

import torch
from torch import Tensor

# lgamma(s) = (s - 1/2) log s - s + log(2 pi) / 2 + sum_k SERIES[k] s^-(2k+1).
# Source: Abramowitz and Stegun 1964, 6.1.41. From s = 8 on the first term left out is below 7e-12.
SERIES = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680)
SERIES_SLOPE = tuple(-(2 * k + 1) * c for k, c in enumerate(SERIES))


def log_binomial(x: Tensor, r: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """log of gamma(x + r) / (gamma(r) gamma(x + 1)).

    Returns:
        The value, and the pieces from which `digamma_difference` makes its slope in r.
    """
    value = r.log()  # exact where x = 1, and half of the counts above 0 are 1
    rest = (x - 1.0).bool().nonzero().squeeze(1)
    series, pieces = _by_series(x.index_select(0, rest), r.index_select(0, rest))
    return value.index_copy_(0, rest, series), (r, rest, *pieces)


def digamma_difference(r: Tensor, rest: Tensor, *pieces: Tensor) -> Tensor:
    """digamma(x + r) - digamma(r), from the pieces that `log_binomial` returned."""
    return r.reciprocal().index_copy_(0, rest, _slope_by_series(*pieces))


def _by_series(x: Tensor, r: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    z = torch.stack((x + r, r, x + 1.0))
    w = (z + 7.0).mul_(z)
    a = (w + 12.0).mul_(w)  # z (z+7) (z+3) (z+4)
    b = torch.add(a, w, alpha=4.0).add_(60.0)  # (z+1) (z+6) (z+2) (z+5)
    far = z + 8.0
    inverse = far.reciprocal()
    log_ratio = (x * inverse[1]).log1p_()

    top, bottom, factorial = (a * b).unbind()
    value = bottom.div_(top).mul_(factorial).log_()
    top, bottom, factorial = _polynomial(inverse * inverse, SERIES).mul_(inverse).unbind()
    value += top.sub_(bottom).sub_(factorial)
    top, bottom, factorial = far.unbind()
    value += top.sub_(0.5).mul_(log_ratio)
    value += bottom.div_(factorial).log_().mul_(x)
    value -= factorial.log_().mul_(8.5)
    value += 9.0 - 0.5 * math.log(2 * math.pi)
    return value, (log_ratio, z[:2], w[:2], a[:2], b[:2], inverse[:2])


def _slope_by_series(
    log_ratio: Tensor, z: Tensor, w: Tensor, a: Tensor, b: Tensor, inverse: Tensor
) -> Tensor:
    # derivative of log(a b): w' = 2 z + 7, a' = 2 (w + 6) w', b' = 2 (w + 8) w'
    product = (w + 6.0).div_(a).add_((w + 8.0).div_(b)).mul_((4.0 * z).add_(14.0))
    square = inverse * inverse
    series = _polynomial(square, SERIES_SLOPE).mul_(square)
    top, bottom = series.sub_(inverse, alpha=0.5).sub_(product).unbind()
    return top.sub_(bottom).add_(log_ratio)


def _polynomial(t: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    value = t * coefficients[-1]
    for c in coefficients[-2:0:-1]:
        value.add_(c).mul_(t)
    return value.add_(coefficients[0])
