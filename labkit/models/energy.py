"""Energy distance of two samples, 2 E|x-y| - E|x-x'| - E|y-y'|, and the forms that others use.

Letters: x and y are samples, (row, axis), with n and m rows. A U-statistic leaves out the pairs of
a row with itself and is unbiased; a V-statistic counts them, as zeros.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import Function

from labkit.kernels.cloud import Cloud
from labkit.kernels.pairwise import distance_sum, weighed_sum


@dataclass(frozen=True)
class Reference:
    """A constant sample with its own distances summed, so that they are paid for once.

    Args:
        cloud: its rows, merged and ordered.
        within: sum of |y - y'| over all pairs of rows.
        shape: (rows, axes).
        dtype: of the rows.
    """

    cloud: Cloud
    within: float
    shape: torch.Size
    dtype: torch.dtype

    @classmethod
    def of(cls, y: Tensor) -> "Reference":
        """Prepares `y` (row, axis)."""
        y = sample(y)
        cloud = Cloud.of(y)
        return cls(cloud, distance_sum(cloud, cloud, False, False)[0], y.shape, y.dtype)


class EnergyFunction(Function):
    """The gradients are computed with the value, so that no distance waits for backward."""

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor | None, reference: Reference | None, biased: bool):
        for_x, for_y, *_ = ctx.needs_input_grad
        a, b = Cloud.of(x), Cloud.of(y) if reference is None else reference.cloud
        across, in_x, in_y = shares_of(len(a.point_of), len(b.point_of), biased)
        known = 0.0
        if reference is not None:
            in_y, known = 0.0, in_y * reference.within
        total, to_x, to_y = weighed_sum(a, b, (across, in_x, in_y), for_x, for_y)
        ctx.save_for_backward(x, y, to_x, to_y)
        return x.new_tensor(total + known)

    @staticmethod
    def backward(ctx, upstream: Tensor):
        x, y, *gradients = ctx.saved_tensors
        out = (None if g is None else _Once.apply(upstream, g, x, y) for g in gradients)
        return *out, None, None


def shares_of(n: int, m: int, biased: bool) -> tuple[float, float, float]:
    """What the sums of |x - y|, |x - x'| and |y - y'| count for in the energy distance."""
    return 2 / (n * m), -1 / (n * (n - 1 + biased)), -1 / (m * (m - 1 + biased))


class _Once(Function):
    """upstream · gradient, a function of x and y that cannot be differentiated.

    once_differentiable would pass for a constant, without an error, where upstream is one.
    """

    @staticmethod
    def forward(ctx, upstream: Tensor, gradient: Tensor, x: Tensor, y: Tensor | None) -> Tensor:
        return upstream * gradient

    @staticmethod
    def backward(ctx, *_):
        raise NotImplementedError(
            "energy_distance has a first derivative only, and its gradient was differentiated. "
            "Detach the gradient, or build the distance from torch.linalg.vector_norm."
        )


def energy_distance(x: Tensor, y: Tensor | Reference, *, biased: bool = False) -> Tensor:
    """Euclidean energy distance of two samples, differentiable once in both.

    Args:
        x: (row, axis), float32 or float64; half precision is computed in float32.
        y: (row, axis), same dtype and axes; or `Reference.of(y)`, a constant.
        biased: the V-statistic: never negative, but E|x-x'|/n + E|y-y'|/m too large.

    Returns:
        A scalar. The U-statistic is negative about every second time where the distributions
        are equal: take no root of it. Coincident rows have gradient 0. NaN gives NaN.

    Raises:
        ValueError: for shapes that do not fit, or too few rows.
        TypeError: for dtypes that are not floating, or that differ.
        NotImplementedError: from a second derivative.

    Breaks when: a coordinate is infinite (NaN), or a distance exceeds the dtype's range.

    Source: Székely & Rizzo 2013, Energy statistics, J. Stat. Plan. Inference 143, 1249.
    """
    x, y = sample(x), y if isinstance(y, Reference) else sample(y)
    fit(x, y, biased)
    if not torch.is_grad_enabled():  # inputs may still ask for gradients, which cost time
        x, y = (s if isinstance(s, Reference) else s.detach() for s in (x, y))
    pair = (None, y) if isinstance(y, Reference) else (y, None)
    return EnergyFunction.apply(x, *pair, biased)


def energy_distance_half(x: Tensor, y: Tensor | Reference) -> Tensor:
    """Half of the V-statistic: what geomloss calls the energy distance.

    Source: Feydy et al. 2019, AISTATS; geomloss, SamplesLoss("energy").
    """
    return energy_distance(x, y, biased=True) / 2


def energy_distance_squared(x: Tensor, y: Tensor, *, biased: bool = False) -> Tensor:
    """The energy distance with squared distances: scPerturb's default, blind to spread.

    Args: as for `energy_distance`.

    Returns:
        The V-statistic is 2 |mean x - mean y|²; the U-statistic subtracts what noise adds to it.

    Breaks when: the samples differ in anything but their means: it does not see it.

    Source: Peidli et al. 2024, scPerturb, Nature Methods 21, 531.
    """
    fit(sample(x), sample(y), biased)
    p, q = x.double(), y.double()
    gap = 2 * (p.mean(0) - q.mean(0)).square().sum()
    noise = 0.0 if biased else sum(2 * s.var(0).sum() / len(s) for s in (p, q))
    return (gap - noise).to(sample(x).dtype)


def energy_distance_guide(x: Tensor, y: Tensor, *, chunk: int = 1024) -> Tensor:
    """The guide's form, kept as the broken one: sqrt(clamp(|x|² + |y|² - 2xy, 0)) in chunks.

    Args:
        x: (row, axis).
        y: (row, axis).
        chunk: rows at a time. The distances of every chunk wait for backward all the same.

    Returns:
        The V-statistic.

    Breaks when: two rows coincide, as each does with itself: gradients are Inf or NaN. The clouds
    lie far from the origin: digits cancel. Entries reach 1.8e19: their squares overflow.
    """

    def mean(a: Tensor, b: Tensor) -> Tensor:
        squares = (
            part.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * part @ b.t()
            for part in a.split(chunk)
        )
        return torch.stack([s.clamp(min=0).sqrt().sum() for s in squares]).sum() / len(a) / len(b)

    return 2 * mean(x, y) - mean(x, x) - mean(y, y)


def sample(x: Tensor) -> Tensor:
    """`x` as (row, axis) in float32 or float64, or an error."""
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"expected a sample of shape (row, axis), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"expected a floating dtype, got {x.dtype}; use x.float()")
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def fit(x: Tensor, y: Tensor | Reference, biased: bool) -> None:
    """An error where the energy distance of two samples is not defined."""
    least, rows = 1 if biased else 2, min(x.shape[0], y.shape[0])
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"expected as many axes in y as in x, {x.shape[1]}, got {y.shape[1]}")
    if x.dtype != y.dtype:
        raise TypeError(f"expected y of x's dtype, {x.dtype}, got {y.dtype}; convert one")
    if rows < least:
        hint = "; biased=True takes one" if rows else ""
        raise ValueError(f"expected at least {least} rows, got {rows}{hint}")
