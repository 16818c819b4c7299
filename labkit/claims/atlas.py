"""Is the guide's table complete? Operations that it leaves out, by value and by gradient."""

import warnings

import torch
import torch.nn.functional as F

from labkit.claims.entry import Ruling, claim, truth
from labkit.claims.subjects import Function, edge, slope

INF = float("inf")
IN_THE_TABLE = frozenset({"exp", "log", "sqrt", "div", "lgamma", "pow", "bmm"})


def born() -> dict[str, torch.Tensor]:
    """What some operations that are not in the table make of arguments that are in reach."""
    one, many = torch.ones(1), torch.full((2,), -INF)
    return {
        "std of one cell": one.std(),
        "mean of no cell": torch.ones(0).mean(),
        "softmax of a fully masked row": many.softmax(0),
        "acos(1 + 1e-6)": torch.tensor(1 + 1e-6).acos(),
        "atanh(1)": one.atanh(),
        "log1p(-1)": (-one).log1p(),
        "expm1(89)": (89 * one).expm1(),
        "70000 in float16": torch.tensor(70000.0).half(),
        "fmod(1, 0)": torch.fmod(one, 0 * one),
        "digamma(-1)": torch.digamma(-one),
        "Inf - Inf": one * INF - INF,
        "0 * Inf": 0 * one * INF,
    }


@claim(
    "G38",
    chinese="NaN/Inf产生点完全图谱",
    english="The table is the complete atlas of where NaN and Inf are born.",
    where="2 title",
    verdict="false",
)
def the_atlas_is_complete(others=born) -> Ruling:
    """Operations outside the table on arguments without a NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of the spread of one value; it is meant
        found = [what for what, value in others().items() if not bool(value.isfinite().all())]
    return truth(not found), (
        f"{len(IN_THE_TABLE)} operations are in the table; {len(found)} more make NaN or Inf of "
        "arguments "
        f"without a NaN: {', '.join(found)}."
    )


FINITE: dict[str, tuple[Function, float]] = {
    "sqrt(x) at 0": (torch.sqrt, 0.0),
    "x**0.5 at 0": (lambda x: x**0.5, 0.0),
    "sqrt(x*x) at 0": (lambda x: (x * x).sqrt(), 0.0),
    "|x|**(1/3) at 0": (lambda x: x.abs() ** (1 / 3), 0.0),
    "acos at 1": (torch.acos, 1.0),
    "asin at 1": (torch.asin, 1.0),
    "xlogy(x, x) at 0": (lambda x: torch.xlogy(x, x), 0.0),
    "entropy at 0": (lambda x: torch.special.entr(x), 0.0),
    "1/(x + 1e-30) at 0": (lambda x: 1 / (x + 1e-30), 0.0),
    "where(x > 0, sqrt(x), 0) at 0": (lambda x: torch.where(x > 0, x.sqrt(), 0.0), 0.0),
    "sqrt(var) of equal values": (lambda x: x.expand(4).var(0).sqrt(), 1.0),
    "logsumexp of a fully masked row": (
        lambda x: (x + torch.full((2,), -INF)).logsumexp(0).exp(),
        1.0,
    ),
    "norm at 0": (lambda x: x[None].norm(), 0.0),
    "std of equal values": (lambda x: x.expand(4).std(), 1.0),
    "atan2(x, x) at 0": (lambda x: torch.atan2(x, x), 0.0),
    "x**x at 0": (lambda x: x**x, 0.0),
}


@claim("D16", english="A finite loss has a finite gradient.", verdict="false")
def a_finite_loss_has_a_finite_gradient(functions=FINITE) -> Ruling:
    """Everyday functions at a point that data reach."""
    pairs = {what: slope(f, x) for what, (f, x) in functions.items()}
    finite = {what: g for what, (value, g) in pairs.items() if abs(value) < INF}
    bad = [what for what, g in finite.items() if not abs(g) < INF]
    return truth(not bad), (
        f"Of {len(finite)} finite values {len(bad)} have NaN or Inf as gradient: "
        f"{', '.join(bad) or 'none'}."
    )


SATURATING: dict[str, tuple[Function, float]] = {
    "clamp(-10, 10) at 15": (lambda x: x.clamp(-10, 10), 15.0),
    "relu at -1": (torch.relu, -1.0),
    "gelu at -20": (F.gelu, -20.0),
    "tanh at 10": (torch.tanh, 10.0),
    "sigmoid at 20": (torch.sigmoid, 20.0),
    "round at 1.4": (torch.round, 1.4),
    "the second of softmax(120, 0)": (lambda x: torch.stack([x, 0 * x]).softmax(0)[1], 120.0),
    "log(sigmoid(x) + 1e-8) at -110": (lambda x: (x.sigmoid() + 1e-8).log(), -110.0),
    "logsigmoid at -110": (F.logsigmoid, -110.0),
}


@claim("D17", english="A finite gradient means that learning goes on.", verdict="false")
def a_finite_gradient_means_learning(functions=SATURATING) -> Ruling:
    """Functions whose gradient is exactly 0 where learning would want one."""
    slopes = {what: slope(f, x)[1] for what, (f, x) in functions.items()}
    dead = [what for what, g in slopes.items() if g == 0]
    living = [f"{what} has {g:g}" for what, g in slopes.items() if g != 0]
    first = edge(lambda x: slope(torch.tanh, float(x))[1] == 0, 0.0, 20.0)[1]
    return truth(not dead), (
        f"Exactly 0, and no check for NaN sees it, is the gradient of {', '.join(dead) or 'none'}; "
        f"tanh is dead from x = {first:.2f} in float32, while {', '.join(living) or 'none lives'}."
    )
