"""log: at 0, below 0, with eps, and of a ratio (guide, 2 and 3.3)."""

from math import exp, log

import torch

from labkit.claims.entry import Ruling, claim, protection, truth
from labkit.claims.subjects import DTYPES, edge, name, slope

EPS = 1e-8  # the guide's


@claim(
    "G20",
    chinese="`log(x)` | x ≤ 0",
    english="log(x) is NaN for x <= 0.",
    where="2 matrix, log, NaN",
    verdict="false",
)
def log_is_nan_up_to_zero(log=torch.log) -> Ruling:
    """Below 0, and at both zeros, in every dtype."""
    below = all(slope(log, -1.0, d)[0] != slope(log, -1.0, d)[0] for d in DTYPES)
    (at, steep), (minus, fall) = slope(log, 0.0), slope(log, -0.0)
    return truth(below and at != at and minus != minus), (
        f"Below 0 it is NaN in every dtype; at 0 it is {at:g} with the gradient {steep:g}, at -0.0 "
        f"it is {minus:g} with {fall:g}."
    )


@claim(
    "G21",
    chinese="x ≤ 0 | - |",
    english="log never gives Inf.",
    where="2 matrix, log, Inf",
    verdict="false",
)
def log_never_gives_inf(points: tuple[float, ...] = (0.0, float("inf"))) -> Ruling:
    """At 0 and at Inf; and what 0 times log(0) is."""
    values = [slope(torch.log, x)[0] for x in points]
    product, safe = slope(lambda x: x * x.log(), 0.0)[0], torch.special.xlogy(*torch.zeros(2, 1))
    return truth(not any(abs(v) == float("inf") for v in values)), (
        f"At {' and '.join(f'{x:g}' for x in points)} it is "
        f"{' and '.join(f'{v:g}' for v in values)}; 0 * log(0) is then {product:g}, where xlogy "
        f"gives {float(safe):g}."
    )


@claim(
    "G22",
    chinese="x + eps",
    english="Adding eps = 1e-8 makes log safe.",
    where="2 matrix, log, guard",
    verdict="incomplete guard",
)
def eps_makes_log_safe(eps: float = EPS) -> Ruling:
    """log(0 + eps) in each dtype, its gradient, a small negative x, and a small x that is right."""
    at_zero = {name(d): slope(lambda x: (x + eps).log(), 0.0, d) for d in DTYPES}
    stopped = at_zero["float32"][0] > -float("inf")
    negative = slope(lambda x: (x + eps).log(), -10 * eps)[0]
    shift = slope(lambda x: (x + eps).log(), 1e-10)[0] - log(1e-10)
    leaks = at_zero["float16"][0] == -float("inf") or negative != negative or shift > 0.1
    return protection(stopped, leaks), (
        f"log(0 + eps) is {at_zero['float32'][0]:.2f} in float32 and {at_zero['float16'][0]:g} in "
        f"float16, where eps is 0; the gradient is {at_zero['float32'][1]:.0e}, "
        f"log(-10 eps + eps) is {negative:g}, and log of 1e-10 is off by {shift:.1f}."
    )


@claim(
    "G47",
    chinese="log(eps) = -18",
    english="At mu = 0, log(mu + eps) = log(eps) = -18.",
    where="2 VAE path, J to K",
    verdict="holds with a condition",
)
def log_of_eps_is_minus_18(eps: float = EPS) -> Ruling:
    """log(0 + eps) in the four dtypes."""
    values = {name(d): float((torch.zeros((), dtype=d) + eps).log()) for d in DTYPES}
    near = [abs(v + 18) < 0.5 for v in values.values()]
    return truth(all(near), sometimes=any(near)), (
        "log(0 + 1e-8) is "
        + ", ".join(f"{v:.2f} in {dtype}" for dtype, v in values.items())
        + "; and a larger eps gives a larger number, so it is a bias and no property of the data."
    )


@claim(
    "G48",
    chinese="如果eps过小 → 数值下溢",
    english="An eps that is too small underflows.",
    where="2 VAE path, K to L",
    verdict="holds",
)
def a_small_eps_underflows() -> Ruling:
    """The largest eps that each dtype rounds to 0; and the largest that 1 + eps loses."""

    def largest(gone, dtype) -> float:
        return edge(lambda e: not gone(e.to(dtype)), 0.0, 1.0, torch.float64)[0]

    lost = {name(d): largest(lambda e: bool(e == 0), d) for d in DTYPES[:3]}
    absorbed = largest(lambda e: bool(1 + e == 1), torch.float32)
    return truth(all(eps > 0 for eps in lost.values())), (
        "Rounded to 0 is every eps up to "
        + ", ".join(f"{eps:.1e} in {dtype}" for dtype, eps in lost.items())
        + f"; and 1 + eps is 1 in float32 up to {absorbed:.0e}."
    )


@claim(
    "G53",
    chinese="所有log运算: 参数+eps",
    english="Every log is protected by +eps.",
    where="2 VAE guard 5; quick reference",
    verdict="incomplete guard",
)
def eps_protects_the_likelihood(eps: float = EPS, log_mu: float = -25.0) -> Ruling:
    """A count of 5 at r = 1: the slope in log mu of the guide's likelihood, and the exact one."""

    def guide(a):
        return 5 * ((a.exp() + eps).log() - (1 + a.exp() + eps).log()) - (1 + a.exp() + eps).log()

    value, pull = slope(guide, log_mu)
    exact = 5 - 6 * exp(log_mu) / (1 + exp(log_mu))
    faded = pull < 0.5 * exact
    half = float(torch.tensor(eps, dtype=torch.float16))
    finite = value > -float("inf")
    return protection(stops=finite, leaks=faded or half == 0), (
        f"A count of 5 at log mu = {log_mu:g} pulls with {pull:.2g} where the exact slope is "
        f"{exact:.2g}: eps hides the gradient where the model is most wrong; in float16 eps "
        f"is {half:.0e}."
    )


@claim(
    "G67",
    chinese="如果a,b都很小，a/b可能下溢",
    english="log(a/b) is unstable, as a/b may underflow if a and b are both small.",
    where="3.3 ratio, problem",
    verdict="false",
)
def a_ratio_of_two_small_numbers_underflows() -> Ruling:
    """Two small numbers of equal and of nearly equal size; then a small one over a large one."""

    def of_ratio(a: float, b: float) -> float:
        return float((torch.tensor(a) / torch.tensor(b)).log())

    small = [of_ratio(1e-30, 1e-30), of_ratio(1e-44, 1e-44), of_ratio(1e-40, 2e-40)]
    right = [abs(v - t) < 1e-3 for v, t in zip(small, (0, 0, -log(2)), strict=True)]
    far, wide = of_ratio(1e-30, 1e20), float(torch.tensor(1e-30).log() - torch.tensor(1e20).log())
    return truth(not any(right), sometimes=not all(right)), (
        f"For 1e-44 over 1e-44 and 1e-40 over 2e-40 it is right ({small[1]:.2f}, {small[2]:.2f}); "
        f"for 1e-30 over 1e20 it is {far:g} where the logs differ by {wide:.1f}: it is the ratio's "
        "range that counts."
    )


@claim(
    "G68",
    chinese="log_ratio = torch.log(a + eps) - torch.log(b + eps)",
    english="log(a + eps) - log(b + eps) is the stable form.",
    where="3.3 ratio, repair",
    verdict="incomplete guard",
)
def eps_in_both_logs_is_stable(eps: float = EPS, b: float = 1e-10) -> Ruling:
    """a = b / 100 at a small b, with eps and without; and a ratio that overflows."""

    def logs(a: float, b: float, eps: float) -> float:
        return float((torch.tensor(a) + eps).log() - (torch.tensor(b) + eps).log())

    true = -log(100)
    plain, got = logs(b / 100, b, 0.0), logs(b / 100, b, eps)
    finite = abs(logs(1e-30, 1e20, eps)) < float("inf")
    return protection(stops=finite, leaks=abs(got - true) > 0.01), (
        f"With a/b = 0.01 at b = {b:.0e} it gives {got:.3f}; the truth is {true:.3f}, and the logs "
        f"without eps give {plain:.3f}: finite, and wrong just where it was meant to help."
    )
