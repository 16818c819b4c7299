"""Samples that break other energy distances, and what is true of them in float64."""

import torch
from torch import Tensor

from labkit.models.energy import Reference, energy_distance

VALUE = 1e-6  # of the mean distance: the terms cancel where x is near y
GRADIENT = 1e-5  # of the cross term's gradient, for the same reason
DOUBLE = 1e-12  # of the mean distance, in float64
GRADIENT_DOUBLE = 1e-9  # of the cross term's; a pair just not near enough to be subtracted has 1e-8
N, M, D = 700, 600, 32  # more than one block, and blocks that are not full


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def counts(n: int, rate: float, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.poisson(torch.full((n, D), rate), generator=g).log1p()


def shuffled(x: Tensor, seed: int) -> Tensor:
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]


X, Y = randn(N, D, seed=1), 0.3 + 1.2 * randn(M, D, seed=2)
FAR = torch.full((D,), 1e4 / D**0.5)


def two(x: Tensor, share: float) -> Tensor:
    """Two clusters 1e4 apart, the far one last."""
    return torch.cat([x[: int(len(x) * share)], x[int(len(x) * share) :] + FAR])


HARD = {
    "plain": (X, Y),
    "offset 1e3": (X + 1e3, Y + 1e3),
    "offset 1e5": (X + 1e5, Y + 1e5),
    "tight": (1 + 1e-3 * X, 1 + 1e-3 * Y),
    "near duplicates 1e-2": (X, X[:M] + 1e-2 * Y),
    "near duplicates 1e-4": (X, X[:M] + 1e-4 * Y),
    "near duplicates 1e-6": (X, X[:M] + 1e-6 * Y),
    "shared rows": (X, torch.cat([X[:200], Y[200:]])),
    "the same sample": (X, shuffled(X, 3)),
    "two clusters sorted": (two(X, 0.5), two(Y, 0.5)),
    "two clusters shuffled": (shuffled(two(X, 0.3), 1), shuffled(two(Y, 0.6), 2)),
    "eight clusters": tuple(
        s + 1e3 * randn(8, D, seed=5)[torch.arange(len(s)) % 8] for s in (X, Y)
    ),
    "one outlier at 1e6": (torch.cat([X[1:], X[:1] + 1e6]), Y),
    "one outlier at 1e30": (torch.cat([X[1:], X[:1] + 1e30]), Y),
    "Cauchy": (X / randn(N, D, seed=3), Y / randn(M, D, seed=4)),
    "log counts": (counts(N, 0.1, 1), counts(M, 0.12, 2)),
    "log counts in 6 axes": (counts(N, 0.3, 1)[:, :6], counts(M, 0.4, 2)[:, :6]),
    "rank one": (500 + X[:, :1] * torch.ones(D), 500 + Y[:, :1] * torch.ones(D)),
    "one axis": (X[:, :1], Y[:, :1]),
    "two axes": (X[:, :2], Y[:, :2]),
    "scale 1e-20": (1e-20 * X, 1e-20 * Y),
    "scale 1e18": (1e18 * X, 1e18 * Y),
    "scale 1e37": (1e37 * X, 1e37 * Y),
    "all equal": (torch.ones(N, D), torch.ones(M, D)),
}


def sums(x: Tensor, y: Tensor) -> tuple[float, Tensor, Tensor]:
    """Sum of all distances and its gradients, every pair subtracted in float64."""
    x, y = x.double(), y.double()
    total, to_x, to_y = 0.0, torch.zeros_like(x), torch.zeros_like(y)
    for rows, part in zip(x.split(100), to_x.split(100), strict=True):
        difference = rows[:, None] - y
        length = difference.norm(dim=2)
        direction = difference / length.where(length > 0, 1.0)[..., None]
        total += float(length.sum())
        part.copy_(direction.sum(1))
        to_y -= direction.sum(0)
    return total, to_x, to_y


def truth(x: Tensor, y: Tensor, biased: bool = False):
    """Value, gradients, mean distance, the cross term's gradients."""
    n, m = len(x), len(y)
    (xy, to_x, to_y), (xx, own_x, _), (yy, own_y, _) = sums(x, y), sums(x, x), sums(y, y)
    between, nn, mm = 2 / (n * m), n * (n - 1 + biased), m * (m - 1 + biased)
    value = between * xy - xx / nn - yy / mm
    gradients = between * to_x - 2 * own_x / nn, between * to_y - 2 * own_y / mm
    return value, gradients, xy / (n * m), (between * to_x, between * to_y)


def differentiated(x: Tensor, y: Tensor | Reference, **options) -> tuple[Tensor, list[Tensor]]:
    leaves = [x.clone().requires_grad_()]
    if isinstance(y, Tensor):
        leaves.append(y.clone().requires_grad_())
    value = energy_distance(*leaves, *([] if len(leaves) == 2 else [y]), **options)
    value.backward()
    return value.detach(), [leaf.grad for leaf in leaves]
