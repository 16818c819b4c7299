"""Bounds on the operator's norm: the guide's penalty and power iteration (guide, 2)."""

import torch

from labkit.claims.entry import Ruling, claim, protection, truth
from labkit.claims.rollouts import overflow_step, turning
from labkit.claims.subjects import normal
from labkit.models.operator import OperatorModel
from labkit.models.spectral import (
    NormBound,
    power_sigma,
    spectral_norm,
    unit,
    unit_guide,
)

INF = float("inf")


@claim(
    "G57",
    chinese="spectral_penalty: 约束算子范数<1.05",
    english="spectral_penalty keeps the operator's norm below 1.05.",
    where="2 operator guard 1",
    verdict="incomplete guard",
)
def the_penalty_bounds_the_norm(weight: float = 1.0) -> Ruling:
    """Fit an operator to data that want a norm of 1.3, for weights of the penalty around one."""
    plain, soft, hard = (settled(w) for w in (0.0, weight, 100 * weight))
    bounded = settled(0.0, NormBound(1.05))
    return protection(stops=soft < plain, leaks=soft > 1.0501), (
        f"Data that want a norm of 1.3 are fitted with {plain:.3f} without a penalty, {soft:.3f} "
        "at "
        f"weight {weight:g} and {hard:.3f} at {100 * weight:g}; a bound in the forward pass gives "
        f"{bounded:.3f}."
    )


def settled(weight: float, bound=None, want: float = 1.3, steps: int = 30) -> float:
    """The norm of the operator that was fitted to data that stretch one direction by `want`."""
    model = OperatorModel(4, 1, 1, n_basis=1)
    z, one = normal(64, 4), torch.ones(1, 2)
    wanted = torch.diag(torch.tensor([want, 0.5, 0.5, 0.5]))
    target = z @ wanted
    with torch.no_grad():
        model.basis.copy_(wanted)  # from where the penalty has to pull it down
    optimizer = torch.optim.SGD([model.basis], lr=0.4 / (1 + weight))
    for _ in range(steps):
        optimizer.zero_grad()
        A = model.operator(one)[0]
        A = bound(A) if bound else A
        fit = (z @ A.mT - target).square().sum(-1).mean()
        (fit + weight * model.spectral_penalty(iterations=3)).backward()
        optimizer.step()
    with torch.no_grad():
        A = model.operator(one)[0]
        return float(spectral_norm(bound(A) if bound else A))


@claim(
    "G59",
    chinese="power iteration: 归一化防止爆炸",
    english="Normalising in the power iteration prevents an explosion.",
    where="2 operator guard 2",
    verdict="incomplete guard",
)
def normalising_prevents_an_explosion(normalise=unit_guide) -> Ruling:
    """The iterate of a large matrix; then a zero matrix, huge entries, one cold iteration."""
    start = normal(32, 1)
    large, none = (
        float(power_sigma(1e3 * normal(32, 32), start, 40, f)[1].norm())
        for f in (normalise, lambda v: v)
    )
    zero = float(normalise(torch.zeros(4, 1)).sum())
    huge = float(power_sigma(torch.full((4, 4), 1e19), torch.ones(4, 1), 1, normalise)[0])
    exact = normal(50, 32, 32)
    cold, _ = power_sigma(exact, normal(50, 32, 1, seed=1), 1, unit)
    low = 1 - float((cold / spectral_norm(exact)).mean())
    leaks = zero != zero or huge != huge or huge == 0 or low > 0.05
    return protection(stops=large < INF, leaks=leaks), (
        f"With it the iterate keeps length {large:.1f}, without it becomes {none:g}; but a zero "
        f"matrix gives {zero:g}, entries of 1e19 give a norm of {huge:g} where it is 4e19, and one "
        f"cold iteration is {low:.0%} too low on average over 50 Gaussian matrices."
    )


@claim(
    "D26",
    english="If every basis operator has a norm of at most 1.05, the operator is bounded.",
    verdict="false",
)
def a_bound_on_each_basis_bounds_the_mixture(weights: str = "linear", size: float = 2.0) -> Ruling:
    """Three bases of norm 1.05 under the response network's weights, as the model mixes them."""
    model = OperatorModel(8, 1, 1, n_basis=3, weights=weights)
    with torch.no_grad():
        model.basis.copy_(1.05 * turning().float().expand(3, 8, 8))
        model.response.fill_(size / 2)
        A = model.operator(torch.ones(1, 2))[0]
        alpha = float(model.alpha(torch.ones(1, 2))[0, 0])
        bases, mixed = (float(spectral_norm(M).max()) for M in (model.basis, A))
    gone = f" and overflows float32 at step {overflow_step(mixed)}" if mixed > 1.06 else ""
    return truth(mixed <= 1.0501), (
        f"Each basis has norm {bases:.2f}; with {weights} weights of {alpha:.2f} each, the mixture "
        f"has {mixed:.2f}{gone}."
    )


def by_vectors(A: torch.Tensor) -> torch.Tensor:
    """The spectral norm as u'Av, with the singular vectors in the graph."""
    U, _, Vh = torch.linalg.svd(A)
    return U[:, 0] @ A @ Vh[0]


@claim(
    "D21",
    english="The spectral norm can be differentiated through an SVD.",
    verdict="false",
)
def an_svd_can_be_differentiated(norm=by_vectors) -> Ruling:
    """At the identity, where an operator starts: by singular vectors, then by singular values."""

    def slope_at(f, A: torch.Tensor) -> torch.Tensor:
        A = A.clone().requires_grad_()
        return torch.autograd.grad(f(A), A)[0]

    start = torch.eye(4)
    bad = int((~slope_at(norm, start).isfinite()).sum())
    anywhere = bool(slope_at(norm, normal(4, 4)).isfinite().all())
    values = float(slope_at(spectral_norm, start).norm())
    return truth(bad == 0 and anywhere), (
        f"At a random matrix it can; at the identity, where all singular values are equal and an "
        f"operator starts, {bad} of 16 entries of the gradient through its vectors are not finite, "
        f"while that of matrix_norm(A, 2) has length {values:.1f}."
    )
