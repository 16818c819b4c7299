"""Masks, comparisons and clean-ups: where a NaN is hidden, and where it comes back."""

import torch
from torch import Tensor

from labkit.claims.entry import Ruling, claim, truth
from labkit.claims.subjects import Function, slope

INF = float("inf")


def where(x: Tensor) -> Tensor:
    """The usual mask: the root where it is defined, else 0."""
    return torch.where(x > 0, x.sqrt(), torch.zeros_like(x))


def double_where(x: Tensor) -> Tensor:
    """The argument is made safe before the root is taken."""
    return torch.where(x > 0, torch.where(x > 0, x, 1.0).sqrt(), torch.zeros_like(x))


@claim(
    "D01",
    english="Masking a bad value with torch.where protects the gradient.",
    verdict="false",
)
def masking_protects_the_gradient(masked: Function = where) -> Ruling:
    """Value and gradient of masked functions at the masked point."""
    traps = {
        "where(x > 0, sqrt(x), 0)": (masked, 0.0),
        "sqrt(x) * (x > 0)": (lambda x: x.sqrt() * (x > 0), 0.0),
        "where(x > 50, x, log1p(exp(x)))": (lambda x: torch.where(x > 50, x, x.exp().log1p()), 100),
        "x.sqrt().masked_fill(x <= 0, 0)": (lambda x: x.sqrt().masked_fill(x <= 0, 0.0), 0.0),
    }
    got = {what: slope(f, float(x)) for what, (f, x) in traps.items()}
    bad = [what for what, (value, g) in got.items() if value == value and g != g]
    chosen, safe = got["where(x > 0, sqrt(x), 0)"], slope(double_where, 0.0)
    return truth(chosen[1] == chosen[1]), (
        f"{len(bad)} of {len(got)} usual masks have a clean value and a NaN gradient, among them "
        f"where(x > 0, sqrt(x), 0) at 0 ({chosen[0]:g}, {chosen[1]:g}); two wheres, the inner one "
        f"around the argument, give ({safe[0]:g}, {safe[1]:g})."
    )


@claim(
    "D15",
    english="A NaN shows up in max, clamp, argmax and comparisons.",
    verdict="holds with a condition",
)
def a_nan_shows_up() -> Ruling:
    """What becomes of [1, nan, 3], and of a check that compares."""
    t, zero = torch.tensor([1.0, torch.nan, 3.0]), torch.zeros(3)
    results = {
        "max": t.max(),
        "clamp": t.clamp(0, 2).sum(),
        "relu": t.relu().sum(),
        "maximum": torch.maximum(t, zero).sum(),
        "median": t.median(),
        "fmax": torch.fmax(t, zero).sum(),
        "nan_to_num": t.nan_to_num().sum(),
        "where(t > 0, t, 0)": torch.where(t > 0, t, zero).sum(),
        "nanmean": t.nanmean(),
        "t[t > 0]": t[t > 0].sum(),
        "Python's max(3, nan)": torch.tensor(max(3.0, torch.nan)),
    }
    swallow = [what for what, value in results.items() if not bool(value.isnan())]
    alarms = sum(loss > 1e3 for loss in (0.9, float("nan"), float("nan")))
    return truth(not swallow and alarms > 0, sometimes=len(swallow) < len(results)), (
        f"{len(results) - len(swallow)} of {len(results)} hand it on; {', '.join(swallow)} "
        "swallow it, "
        f"argmax answers its place ({int(t.argmax())}), and `if loss > 1e3` fires {alarms} times "
        "for "
        "two NaN losses."
    )


@claim("D25", english="torch.nan_to_num repairs a NaN.", verdict="false")
def nan_to_num_repairs(gradient: float = INF) -> Ruling:
    """On a loss; on a gradient of Inf, with Adam behind it."""
    loss, inside = slope(lambda x: (x.square().sqrt() * INF).nan_to_num(), 0.0)
    w = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=0.1)
    w.grad = torch.tensor([gradient]).nan_to_num()
    replaced = float(w.grad)
    optimizer.step()
    start = float(w.detach())
    for _ in range(20):
        w.grad = torch.ones(1)
        optimizer.step()
    moved = abs(float(w.detach()) - start)
    return truth(inside == inside and moved > 0), (
        f"On a loss it gives {loss:g} with the gradient {inside:g}; a gradient of {gradient:g} "
        "becomes "
        f"{replaced:.1e}, which fills Adam's second moment, so that 20 good steps move the "
        "parameter "
        f"by {moved:g}."
    )
