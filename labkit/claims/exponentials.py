"""exp: where it overflows, what a clamp does to it, and differences of two (guide, 2 and 3.3)."""

from math import exp, expm1, log

import torch

from labkit.claims.entry import Ruling, claim, protection, truth
from labkit.claims.subjects import DTYPES, edge, name, non_finite, slope


@claim(
    "G17",
    chinese="`exp(x)` | x是NaN",
    english="exp(x) is NaN only if x is NaN.",
    where="2 matrix, exp, NaN",
    verdict="holds with a condition",
)
def exp_gives_nan_for_nan_only(x: float = 100.0) -> Ruling:
    """Values over the whole line, then the gradient of exp behind a mask that leaves it out."""
    line = torch.tensor([-torch.inf, -1e30, 0.0, 1e30, torch.inf])
    forward = not bool(line.exp().isnan().any())
    value, gradient = slope(lambda v: torch.where(v > 50, v, v.exp()), x)
    backward = gradient == gradient
    return truth(forward and backward, sometimes=forward), (
        f"No value is NaN, from -Inf to Inf; but where(x > 50, x, exp(x)) at {x:g} is {value:g} "
        f"with the gradient {gradient:g}, as the masked exp overflows and Inf times 0 is NaN."
    )


@claim(
    "G18",
    chinese="x > 88",
    english="exp(x) is Inf for x > 88.",
    where="2 matrix, exp, Inf",
    verdict="holds with a condition",
)
def exp_is_inf_above_88(limit: float = 88.0) -> Ruling:
    """The first x with exp(x) = Inf in each dtype; the rule is right if it lies within 1."""
    first = {name(d): edge(non_finite(torch.exp), 0.0, 1000.0, d)[1] for d in DTYPES}
    within = [limit < x <= limit + 1 for x in first.values()]
    return truth(all(within), sometimes=any(within)), (
        "The first x with exp(x) = Inf is "
        + ", ".join(f"{x:.2f} in {dtype}" for dtype, x in first.items())
        + f"; and exp(88.5) is {float(torch.tensor(88.5).exp()):.1e} in float32."
    )


def clamp(x: torch.Tensor) -> torch.Tensor:
    """The guide's."""
    return x.clamp(-10, 10)


@claim(
    "G19",
    chinese="clamp x到[-10,10]",
    english="Clamping x to [-10, 10] protects exp.",
    where="2 matrix, exp, guard",
    verdict="incomplete guard",
)
def a_clamp_protects_exp(x: float = 15.0, guard=clamp) -> Ruling:
    """exp(clamp(x)): overflow in every dtype, the gradient outside, NaN."""

    def clamped(v):
        return guard(v).exp()

    finite = all(slope(clamped, 1e4, d)[0] < float("inf") for d in DTYPES)
    (value, gradient), nan = slope(clamped, x), slope(clamped, torch.nan)
    same = value == slope(clamped, 1000.0)[0]
    return protection(stops=finite, leaks=gradient == 0 or nan[0] != nan[0]), (
        f"It stops the overflow in every dtype; at {x:g} the value {value:.0f} is "
        f"{'the same' if same else 'not that'} as at 1000 with the gradient {gradient:g}, and NaN "
        f"passes with the gradient {nan[1]:g}."
    )


@claim(
    "G24",
    chinese="所有exp运算的输入都clamp到合理范围",
    english="Clamp the input of every exp to a reasonable range.",
    where="quick reference, stability",
    verdict="holds with a condition",
)
def every_exp_wants_a_clamp(logits: tuple[float, ...] = (20.0, 12.0, 0.0)) -> Ruling:
    """Probabilities from clamped exponentials, beside softmax, which subtracts the maximum."""

    def by_clamp(a):
        return a.clamp(-10, 10).exp() / a.clamp(-10, 10).exp().sum()

    got, true = (_second(f, logits) for f in (by_clamp, lambda a: a.softmax(0)))
    finite = got[0] < float("inf")
    right = abs(got[0] - true[0]) < 1e-6 and abs(got[1] - true[1]) < 1e-6
    return truth(finite and right, sometimes=finite), (
        f"The clamp keeps exp finite, but makes the second of three probabilities {got[0]:.2g} "
        f"where it is {true[0]:.2g}, and the gradient of its log {got[1]:.1g} where it is "
        f"{true[1]:.2g}; subtracting the maximum needs no clamp."
    )


def _second(probabilities, logits: tuple[float, ...]) -> tuple[float, float]:
    """The second probability, and the gradient of its logarithm in the second logit."""
    a = torch.tensor(logits, requires_grad=True)
    p = probabilities(a)[1]
    return float(p.detach()), float(torch.autograd.grad(p.log(), a)[0][1])


@claim(
    "G69",
    chinese="torch.exp(a) - torch.exp(b)  # 可能溢出",
    english="exp(a) - exp(b) may overflow.",
    where="3.3 difference of exponentials, problem",
    verdict="holds",
)
def a_difference_of_exps_may_overflow(a: float = 100.0) -> Ruling:
    """One term too large, both too large, and two that are nearly equal."""

    def difference(a: float, b: float) -> float:
        return float(torch.tensor(a).exp() - torch.tensor(b).exp())

    one, both, near = difference(a, 1.0), difference(a, a - 1), difference(1 + 1e-7, 1.0)
    true = exp(1) * expm1(float(torch.tensor(1 + 1e-7)) - 1)
    return truth(one in (float("inf"),) or both != both), (
        f"exp({a:g}) - exp(1) is {one:g} and exp({a:g}) - exp({a - 1:g}) is {both:g}; besides, "
        f"near 1 it loses its digits: {near:.2e} where the difference is {true:.2e}."
    )


@claim(
    "G70",
    chinese="diff = torch.exp(a - max_val) - torch.exp(b - max_val)",
    english="Subtracting the maximum gives the stable difference: the log-sum-exp trick.",
    where="3.3 difference of exponentials, repair",
    verdict="false",
)
def subtracting_the_maximum_keeps_the_difference(a: float = 3.0, b: float = 1.0) -> Ruling:
    """The guide's difference, its gradient, and what the maximum added back gives."""

    def guide(v):
        top = torch.maximum(v, torch.tensor(b))
        return (v - top).exp() - (b - top).exp()

    (value, gradient), true = slope(guide, a), exp(a) - exp(b)
    log_size = max(a, b) + log(-expm1(-abs(a - b)))
    return truth(abs(value - true) < 1e-3 * abs(true)), (
        f"At a = {a:g}, b = {b:g} it is {value:.3f} and the difference is {true:.2f}, its gradient "
        f"{gradient:.3f} and the true one {exp(a):.1f}: the maximum was never put back (its log is "
        f"{log_size:.3f})."
    )
