"""Division: by 0, by almost 0, and with eps (guide, 2)."""

import torch
import torch.nn.functional as F

from labkit.claims.entry import Ruling, claim, protection, truth
from labkit.claims.subjects import edge, name, slope

EPS = 1e-8  # the guide's
INF = float("inf")


@claim(
    "G27",
    chinese="`x / y` | y=0",
    english="x/y is NaN if y = 0.",
    where="2 matrix, division, NaN",
    verdict="false",
)
def dividing_by_zero_is_nan(numerators: tuple[float, ...] = (1.0, -1.0)) -> Ruling:
    """Numbers that are not 0, over 0; then 0 over 0, which an empty cell makes."""
    values = [float(torch.tensor(x) / 0.0) for x in numerators]
    empty = torch.zeros(3) / torch.zeros(3).sum()
    return truth(all(v != v for v in values)), (
        f"{' and '.join(f'{x:g}/0' for x in numerators)} are "
        f"{' and '.join(f'{v:g}' for v in values)}; NaN is 0/0, as for an empty cell divided by "
        f"its library size ({int(empty.isnan().sum())} of 3 genes)."
    )


@claim(
    "G28",
    chinese="x很大且y很小",
    english="x/y is Inf if x is large and y is small.",
    where="2 matrix, division, Inf",
    verdict="holds with a condition",
)
def a_quotient_is_inf_for_large_over_small(dtype: torch.dtype = torch.float32) -> Ruling:
    """Large over small; then the largest y at which 1/y is Inf, and its gradient."""
    large = float(torch.tensor(1e30) / torch.tensor(1e-30))
    value = edge(lambda y: not bool((1 / y) == INF), 0.0, 1.0, dtype)[0]
    gradient = edge(lambda y: slope(lambda v: 1 / v, float(y), dtype)[1] > -INF, 0.0, 1.0, dtype)[0]
    only_then = value == 0 and gradient == 0
    return truth(large == INF and only_then, sometimes=large == INF), (
        f"1e30/1e-30 is {large:g}, but so is 1/y for y up to {value:.1e} in {name(dtype)}, and the "
        f"gradient -1/y² overflows from {gradient:.1e} already, where the value is finite."
    )


@claim(
    "G29",
    chinese="y + eps",
    english="Dividing by y + eps is safe.",
    where="2 matrix, division, guard; quick reference",
    verdict="incomplete guard",
)
def eps_makes_division_safe(eps: float = EPS, lowest: float = -1e-8) -> Ruling:
    """1/(y + eps) at 0, at a small negative y, its gradient at 0, and in float16."""

    def quotient(y):
        return 1 / (y + eps)

    (at, steep), below = slope(quotient, 0.0), slope(quotient, lowest)[0]
    half = slope(quotient, 0.0, torch.float16)[0]
    unit, turn = slope(lambda y: F.normalize(y[None], dim=0)[0], 0.0)
    leaks = abs(below) == INF or half == INF or abs(steep) > 1e12
    return protection(stops=at < INF, leaks=leaks), (
        f"At y = 0 it is {at:.0e} with the gradient {steep:.0e}; at y = {lowest:.0e} it is "
        f"{below:g}, and in float16 it is {half:g} at 0; F.normalize of 0 is {unit:g} with the "
        f"gradient {turn:.0e}."
    )
