"""Rollouts of a latent operator: what makes them explode, or their gradient vanish."""

from functools import cache, partial
from math import log

import torch
from torch import Tensor

from labkit.claims.entry import Ruling, claim, truth
from labkit.claims.subjects import DTYPES, flushed, name, normal
from labkit.models.spectral import (
    log10_growth,
    spectral_norm,
)

INF = float("inf")


@cache
def turning(size: int = 8, seed: int = 0) -> Tensor:
    """An orthogonal matrix in float64: it turns, and stretches nothing."""
    return torch.linalg.qr(normal(size, size, seed=seed, dtype=torch.float64))[0]


def rolled(A: Tensor, steps: int) -> Tensor:
    """A unit vector after some steps."""
    z = torch.zeros(A.shape[-1], dtype=A.dtype)
    z[0] = 1.0
    for _ in range(steps):
        z = A @ z
    return z


def overflow_step(norm: float, dtype: torch.dtype = torch.float32) -> int:
    """The first step at which norm**n leaves the dtype's range."""
    return int(log(torch.finfo(dtype).max) / log(norm)) + 1


@claim(
    "G54",
    chinese="矩阵乘法累积误差 → z1_pred爆炸 → Inf",
    english="Accumulated error of matrix products makes z1_pred explode.",
    where="2 operator path, cause",
    verdict="false",
)
def accumulated_error_makes_the_state_explode(norm: float = 1.2, steps: int = 440) -> Ruling:
    """A rollout in float32 beside one in float64: how large, and how far apart."""
    A = norm * turning()
    exact, got = rolled(A, steps), rolled(A.float(), steps).double()
    size, apart = float(exact.norm()), float((got - exact).norm() / exact.norm())
    exploded = size > 1e10
    return truth(exploded and apart > 0.5), (
        f"At norm {norm:g} the state has grown to {size:.1e} after {steps} steps, and float32 is "
        f"{apart:.0e} of it away from float64: it is the operator's own growth, which more digits "
        "do not change."
    )


@claim(
    "G58",
    chinese="算子谱范数: [0, 1.05]",
    english="A spectral norm of up to 1.05 keeps the operator stable.",
    where="2 operator guard 1; 3.2 ranges",
    verdict="false",
)
def a_norm_of_up_to_1_05_is_stable(norm: float = 1.05, steps: int = 1000) -> Ruling:
    """A unit vector under a turning matrix of that norm."""
    growth = {n: norm**n for n in (48, 100, steps)}
    measured = float(rolled(norm * turning(), steps).norm())
    if norm <= 1:
        return truth(measured <= 1 + 1e-9), f"After {steps} steps the state is {measured:.2g} long."
    first = {name(d): overflow_step(norm, d) for d in DTYPES[:3]}
    return truth(measured < 10), (
        f"A state grows {growth[48]:.0f} times in 48 steps, {growth[100]:.0f} times in 100 and "
        f"{measured:.1e} times in {steps}; it overflows float32 at step {first['float32']} and "
        f"float16 at step {first['float16']}."
    )


@claim(
    "D14",
    english="A spectral radius below 1 means a stable rollout.",
    verdict="false",
)
def a_radius_below_one_is_stable(
    off_diagonal: float = 10.0, beside: float = 0.14, radius: float = 0.9
) -> Ruling:
    """The growth of powers of a 2x2 matrix and of a 64x64 shift with equal eigenvalues."""
    A = torch.tensor([[radius, off_diagonal], [0.0, radius]])
    logs = log10_growth(A, 40)
    peak, step = 10 ** float(logs.max()), int(logs.argmax()) + 1
    shift = radius * torch.eye(64) + beside * torch.diag(torch.ones(63), 1)
    norm, far, at = float(spectral_norm(shift)), *_peak(shift)
    return truth(peak <= 1.01 and far <= 1.01), (
        f"With both eigenvalues {radius:g} and {off_diagonal:g} beside them a state grows "
        f"{peak:.0f} times by step {step}; a 64x64 shift of norm {norm:.2f} and radius "
        f"{radius:g}, inside the guide's bound, {far:.1e} times by step {at}."
    )


def _peak(A: Tensor, jump: int = 16, last: int = 800) -> tuple[float, int]:
    """The largest norm of a power of A, and of which, looked at every few steps."""
    stride = torch.linalg.matrix_power(A.double(), jump)
    power, found = stride, []
    for n in range(jump, last, jump):
        found.append((float(power.norm()), n))
        power = power @ stride
    n = max(found)[1]
    window = [
        (float(spectral_norm(torch.linalg.matrix_power(A.double(), k))), k)
        for k in range(n - jump, n + jump)
    ]
    return max(window)


@claim(
    "D27",
    english="A strictly contracting operator is the safe choice.",
    verdict="false",
)
def a_contraction_is_safe(norm: float = 0.9, steps: int = 1000) -> Ruling:
    """The gradient of a state after some steps in its start."""
    z0 = torch.tensor(1.0, requires_grad=True)
    small = int(log(1e-8) / log(norm)) + 1 if norm < 1 else 0
    gradient = partial(_slope_through, z0, norm, steps)
    value = gradient()
    with flushed():
        zero = gradient()
    return truth(value > 1e-8), (
        f"The state is safe, but a loss {steps} steps on has the gradient {value:.1e} at the start "
        f"({zero:g} where subnormal numbers are flushed), and from step {small} on less than 1e-8."
    )


def _slope_through(z0: Tensor, norm: float, steps: int) -> float:
    z = z0
    for _ in range(steps):
        z = z * norm
    return float(torch.autograd.grad(z, z0)[0])
