"""The diagram of the operator, each arrow run on the lab's operator with one fault."""

from functools import cache, partial

import torch
from torch import Tensor

from labkit.claims.entry import FALSE, HOLDS, Ruling, truth
from labkit.claims.paths import arrow
from labkit.claims.rollouts import overflow_step, turning
from labkit.claims.subjects import CLAMP_EDGE, normal
from labkit.models.energy import energy_distance_guide
from labkit.models.operator import OPERATOR_OFF, OperatorModel

INF = float("inf")


def operator(norm: float) -> OperatorModel:
    """The lab's operator: one basis, that turns and stretches by `norm`."""
    model = OperatorModel(8, 1, 1, n_basis=1)
    with torch.no_grad():
        model.basis.copy_(norm * turning().float())
    return model


def after(model: OperatorModel, z: Tensor, steps: int) -> Tensor:
    """The state after some steps, unguarded."""
    one = torch.ones(len(z), 1, dtype=z.dtype)
    return model(z, one, one, steps, OPERATOR_OFF)


def far_apart(x: Tensor, y: Tensor) -> Tensor:
    """The energy distance by differences, with a gradient of 0 between equal points."""
    exact = partial(torch.cdist, compute_mode="donot_use_mm_for_euclid_dist")
    return 2 * exact(x, y).mean() - exact(x, x).mean() - exact(y, y).mean()


@cache
def rolled(norm: float, steps: int) -> tuple[float, float]:
    """How much a state has grown after some steps, and how far float32 is from float64."""
    z = normal(4, 8)
    single = after(operator(norm), z, steps).detach().double()
    exact = after(operator(norm).double(), z.double(), steps).detach()
    return float(exact.norm() / z.norm()), float((single - exact).norm() / exact.norm())


def backward(z: Tensor, distance) -> tuple[float, int, float]:
    """The loss of one step, how many of its gradients are bad, and their largest entry."""
    model = operator(1.0)
    loss = distance(after(model, z, 1), normal(32, 8, seed=1))
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    bad = sum(not bool(g.isfinite().all()) for g in grads)
    return float(loss.detach()), bad, max(float(g.abs().max()) for g in grads)


@arrow("operator", "unstable", "error", verdict="false", claims=("G54",))
def an_unstable_operator_piles_up_errors(norm: float = 1.2, steps: int = 100) -> Ruling:
    """unstable -> error."""
    grown, apart = rolled(norm, steps)
    return truth(apart > 0.01), (
        f"At norm {norm:g} a state has grown {grown:.0e} times after {steps} steps, and float32 is "
        f"{apart:.0e} of it away from float64."
    )


@arrow("operator", "error", "explodes", verdict="false", claims=("G54",))
def errors_make_the_state_explode(norm: float = 1.2, steps: int = 100) -> Ruling:
    """error -> explodes: with errors of float64 the state would not grow."""
    grown, _ = rolled(norm, steps)
    expected = norm**steps
    return truth(abs(grown / expected - 1) > 0.01), (
        f"float64, which rounds 500 million times finer, grows {grown:.3e} times as "
        f"well, and norm**{steps} is {expected:.3e}."
    )


@arrow("operator", "explodes", "distance", verdict="holds with a condition", claims=("G55",))
def an_infinite_state_overflows_the_distance(size: float = 1e20) -> Ruling:
    """explodes -> distance: the state need not be Inf."""
    y = normal(16, 8, seed=1)
    finite, infinite = (float(torch.cdist(z, y).max()) for z in (size * y, INF * y.abs()))
    early = finite == INF
    return truth(not early, sometimes=not abs(infinite) < INF), (
        f"A state of Inf makes the largest distance {infinite:g}, but so does one of {size:.0e} "
        f"({finite:g}), which is finite and passes every check for Inf."
    )


@arrow("operator", "distance", "loss", verdict="holds", claims=("G55",))
def distances_that_overflow_make_the_loss_nan(size: float = 1e20) -> Ruling:
    """distance -> loss."""
    loss = float(energy_distance_guide(size * normal(32, 8), normal(32, 8, seed=1)))
    return truth(loss != loss), f"With z at {size:.0e} the loss is {loss:g}, as Inf - Inf is NaN."


@arrow("operator", "loss", "parameters", verdict="false", claims=("G56",))
def a_nan_loss_makes_the_operator_nan(size: float = 1e30) -> Ruling:
    """loss -> parameters."""
    loss, bad, steepest = backward(size * normal(32, 8), far_apart)
    return truth(loss != loss and bad > 0), (
        f"With z at {size:.0e} the loss is {loss:g}, and {bad} gradients are bad; the largest "
        "entry "
        f"of all is {steepest:g}, so that nothing moves."
    )


@arrow("operator", "unstable", "growth", verdict="holds", claims=("G54", "G58"), by_guide=False)
def an_unstable_operator_stretches(norm: float = 1.05, steps: int = 100) -> Ruling:
    """Missed: unstable -> growth."""
    grown, _ = rolled(norm, steps)
    return truth(grown > 10), (
        f"At norm {norm:g}, which the guide allows, a state grows {grown:.0f} times in {steps} "
        "steps."
    )


@arrow("operator", "growth", "explodes", verdict="holds", claims=("G54",), by_guide=False)
def stretching_ends_at_inf(norm: float = 1.2, size: float = 1e30) -> Ruling:
    """Missed: growth -> explodes."""
    z = after(operator(norm), size * normal(4, 8), 120)
    first = overflow_step(norm) if norm > 1 else 0
    return truth(not bool(z.isfinite().all())), (
        f"A state of {size:.0e} leaves float32 within 120 steps at norm {norm:g}; one of size 1 "
        "does "
        f"at step {first}."
    )


@arrow("operator", "self", "NaN gradients", verdict=HOLDS if CLAMP_EDGE else FALSE,
       claims=("D02", "G26"), by_guide=False)  # fmt: skip
def distances_of_zero_make_nan_gradients(distance=energy_distance_guide) -> Ruling:
    """Missed: self -> NaN gradients. It hinges on what clamp hands back at its edge."""
    loss, bad, _ = backward(normal(32, 8), distance)
    return truth(abs(loss) < INF and bad > 0), (
        f"With z as it is the guide's distance gives a loss of {loss:.2f}, and {bad} gradients are "
        "bad: after the first step the parameters are NaN."
    )


@arrow("operator", "contraction", "vanishing", verdict="holds", claims=("D27",), by_guide=False)
def a_contraction_loses_the_gradient(norm: float = 0.9, steps: int = 200) -> Ruling:
    """Missed: contraction -> vanishing."""
    z = normal(4, 8).requires_grad_()
    loss = after(operator(norm), z, steps).sum()
    slope = float(torch.autograd.grad(loss, z)[0].abs().max())
    return truth(0 <= slope < 1e-8), (
        f"At norm {norm:g} the gradient of a state in its start is {slope:.0e} after {steps} steps."
    )


@arrow("operator", "far", "cancelled", verdict="holds", claims=("D03",), by_guide=False)
def distances_far_from_the_origin_are_wrong(offset: float = 1000.0) -> Ruling:
    """Missed: far -> cancelled."""
    x, y = normal(32, 8), normal(32, 8, seed=1) + 1.0
    true = float(energy_distance_guide(x.double(), y.double()))
    got = float(energy_distance_guide(x + offset, y + offset))
    return truth(abs(got / true - 1) > 1e-3), (
        f"Both clouds moved by {offset:g}, which changes no distance, change the guide's energy "
        f"distance from {true:.4f} to {got:.4f}."
    )
