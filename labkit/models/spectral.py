"""How far a matrix can stretch: spectral norm, its estimate, its bound, the growth of powers.

Letters: `A` a stack of matrices (..., row, column); `sigma` spectral norm, the largest singular
value; `u`, `v` its left and right singular vectors (..., row, 1) and (..., column, 1).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Sigma = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]  # (A, v, iterations) to (sigma, v)


def spectral_norm(A: Tensor) -> Tensor:
    """Exact spectral norm of each matrix, by singular values; entries of any finite size.

    Returns:
        Shape (...). NaN for a matrix that is not finite, Inf where sigma exceeds the dtype.

    Breaks when: singular values tie, as in the identity: the gradient is one choice of many.
    """
    S, scale = _scaled(A)
    finite = S.isfinite().flatten(-2).all(-1)
    sigma = torch.linalg.matrix_norm(torch.where(finite[..., None, None], S, 0.0), 2)
    return torch.where(finite, sigma * scale[..., 0, 0], torch.nan).to(A.dtype)


def power_sigma(A: Tensor, v: Tensor, iterations: int = 1) -> tuple[Tensor, Tensor]:
    """Spectral norm by power iteration on A'A. Its gradient is u v'.

    Args:
        v: where to start, not zero. Hand the returned one to the next call: while A drifts
            slowly, one iteration a call is enough.

    Returns:
        A lower bound of sigma, shape (...), and the new v, which carries no gradient.

    Breaks when: `v` is cold and iterations are few: one leaves a 32x32 Gaussian 18 % too low on
    average, and a penalty on it too weak. NaN or Inf in `A` gives NaN.

    Source: Miyato et al. 2018, Spectral Normalization for GANs, algorithm 1.
    """
    S, scale = _scaled(A)
    with torch.no_grad():
        v = v.to(S.dtype)
        for _ in range(iterations):
            v = _unit(S.mT @ _unit(S @ v))
        u = _unit(S @ v)
    return (scale * (u.mT @ S @ v))[..., 0, 0].to(A.dtype), v.to(A.dtype)


def power_sigma_guide(
    A: Tensor, v: Tensor, iterations: int = 1, eps: float = 0.0
) -> tuple[Tensor, Tensor]:
    """As `power_sigma`, but protected as in the guide: iterates are divided by their norm.

    Args:
        eps: added to each norm; it lowers the estimate by about eps over the norm.

    Breaks when: `A` is zero and eps is 0 (0/0 is NaN); float32 entries are near 1e19: the square
    inside the norm overflows, and the estimate is NaN, or 0 with an eps: the penalty vanishes.
    """
    for _ in range(iterations):
        u = A @ v
        u = u / (u.norm(dim=-2, keepdim=True) + eps)
        v = A.mT @ u
        v = v / (v.norm(dim=-2, keepdim=True) + eps)
    return (A @ v).norm(dim=-2)[..., 0], v.detach()


def power_sigma_off(A: Tensor, v: Tensor, iterations: int = 1) -> tuple[Tensor, Tensor]:
    """As `power_sigma`, without any protection: v grows as sigma^(2 iterations)."""
    for _ in range(iterations):
        v = A.mT @ (A @ v)
    return ((A @ v).norm(dim=-2) / v.norm(dim=-2))[..., 0], v.detach()


@dataclass(frozen=True)
class NormBound:
    """Scales matrices down to spectral norm `max_norm` where they exceed it.

    With 1, no product of such matrices stretches anything. Below the bound nothing is done. Above
    it the gradient along A itself is zero, in all other directions it lives.

    Breaks when: a matrix is not finite; it is handed on.
    """

    max_norm: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.max_norm < float("inf"):
            raise ValueError(f"max_norm: expected a finite number above 0; got {self.max_norm}")

    @classmethod
    def for_gain(cls, gain: float, steps: int) -> "NormBound":
        """The bound under which `steps` steps stretch nothing by more than `gain`."""
        return cls(gain ** (1 / steps))

    def __call__(self, A: Tensor) -> Tensor:
        sigma = spectral_norm(A)
        if not (sigma > self.max_norm).any():
            return A
        return A * (self.max_norm / sigma.clamp(min=self.max_norm))[..., None, None]


def log10_growth(A: Tensor, steps: int) -> Tensor:
    """log10 of the spectral norm of A^n for n = 1 to `steps`, shape (step, ...), in float64.

    Eigenvalues do not tell it: a non-normal A grows first even where all of them are below 1.

    Source: Trefethen & Embree 2005, Spectra and Pseudospectra, chapters 14 to 16.
    """
    A, log, logs = A.detach().double(), 0.0, []
    power = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    for _ in range(steps):
        power = A @ power
        size = spectral_norm(power)
        power = power / size.clamp(min=torch.finfo(A.dtype).tiny)[..., None, None]
        log = log + size.log10()
        logs.append(log)
    return torch.stack(logs)


def _scaled(A: Tensor) -> tuple[Tensor, Tensor]:
    """A over its largest entry, float32 at least, and that entry: squares cannot overflow."""
    if A.ndim < 2 or 0 in A.shape[-2:] or not A.is_floating_point():
        raise ValueError(
            f"expected floating-point matrices (..., row, column), got {tuple(A.shape)} {A.dtype}"
        )
    A = A.to(torch.promote_types(A.dtype, torch.float32))
    scale = A.detach().abs().amax((-2, -1), keepdim=True)
    scale = torch.where(scale == 0, 1.0, scale)
    return A / scale, scale


def _unit(x: Tensor) -> Tensor:
    """Each column vector over its length; zero stays zero."""
    return x / x.norm(dim=-2, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
