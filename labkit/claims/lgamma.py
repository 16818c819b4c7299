"""lgamma and the negative binomial's r: small, large and negative (guide, 2)."""

from math import log

import torch

from labkit.claims.entry import Ruling, claim, protection, truth
from labkit.claims.subjects import (
    edge,
    non_finite,
    slope,
)

EPS = 1e-8  # the guide's
INF = float("inf")


@claim(
    "G30",
    chinese="`lgamma(x)` | x < 0",
    english="lgamma(x) is NaN for x < 0.",
    where="2 matrix, lgamma, NaN",
    verdict="false",
)
def lgamma_is_nan_below_zero(lgamma=torch.lgamma) -> Ruling:
    """4001 points below 0; and the gradient at a negative integer."""
    line = torch.linspace(-50.0, -1e-3, 4001)
    nans = int(lgamma(line).isnan().sum())
    half, (pole, steep) = slope(lgamma, -0.5)[0], slope(lgamma, -1.0)
    return truth(nans == len(line), sometimes=nans > 0), (
        f"Of 4001 negative x {nans} give NaN: torch returns log|Gamma(x)|, {half:.3f} at -0.5, a "
        f"plausible wrong number; at -1 it is {pole:g}, and its gradient {steep:g}."
    )


@claim(
    "G31",
    chinese="x ≈ 0",
    english="lgamma(x) is Inf for x near 0.",
    where="2 matrix, lgamma, Inf",
    verdict="holds with a condition",
)
def lgamma_is_inf_near_zero(near: tuple[float, ...] = (0.0, 1e-45, 1e-30, 1e-8)) -> Ruling:
    """0 and three small numbers; and the first large x with an infinite value."""
    values = [slope(torch.lgamma, x)[0] for x in near]
    top = edge(non_finite(torch.lgamma), 1.0, 3e38)[1]
    half = edge(non_finite(torch.lgamma), 1.0, 60000.0, torch.float16)[1]
    inf = [v == INF for v in values]
    return truth(all(inf), sometimes=any(inf)), (
        f"At {', '.join(f'{x:.0e}' for x in near)} it is "
        f"{', '.join(f'{v:.1f}' for v in values)}: Inf at 0 itself alone; and the table leaves out "
        f"that it is Inf from {top:.2e} on in float32, {half:.0f} in float16."
    )


@claim(
    "G32",
    chinese="clamp x到>eps",
    english="clamp(x, min=eps) protects lgamma.",
    where="2 matrix, lgamma, guard",
    verdict="incomplete guard",
)
def a_floor_protects_lgamma(eps: float = EPS) -> Ruling:
    """Value and gradient at the floor, below it, in float16, of NaN; and through log r."""

    def guarded(r):
        return r.clamp(min=eps).lgamma()

    (value, steep), below = slope(guarded, 1.01 * eps), slope(guarded, 0.0)[1]
    half, nan = slope(guarded, 0.0, torch.float16)[0], slope(guarded, torch.nan)[0]
    in_log = slope(lambda a: a.exp().lgamma(), log(1.01 * eps))[1]
    leaks = half == INF or nan != nan or below == 0 or abs(steep) > 1e6
    return protection(stops=value < INF, leaks=leaks), (
        f"At the floor the value is {value:.1f} with the gradient {steep:.0e} ({in_log:.2f} in "
        f"log r), below it the gradient is {below:g}; NaN passes, and in float16 the floor is 0 "
        f"and the value {half:g}."
    )


@claim(
    "G45",
    chinese="r过小 <1e-8",
    english="A tiny r makes lgamma(r) a hugely negative number.",
    where="2 VAE path, G to H",
    verdict="false",
)
def lgamma_of_a_tiny_r_is_hugely_negative(r: float = 1e-8) -> Ruling:
    """At a tiny r, at the smallest float32, and the least value anywhere."""
    value, steep = slope(torch.lgamma, r)
    smallest = slope(torch.lgamma, 2.0**-149)[0]
    least = float(torch.linspace(0.01, 10, 20001).lgamma().min())
    return truth(value < -100), (
        f"At r = {r:.0e} it is {value:+.2f}, for no positive float32 above {smallest:+.2f} and for "
        f"none below {least:.3f}; what is large is the gradient, {steep:.0e}."
    )
