"""Clipping the gradient's norm: what it spreads, what it hides (guide, 3.4)."""

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm

from labkit.claims.entry import Ruling, claim, truth
from labkit.claims.subjects import edge, error_of

INF = float("inf")


def given(*grads: list[float]) -> list[Tensor]:
    """Parameters with these gradients."""
    parameters = [torch.zeros(len(g), requires_grad=True) for g in grads]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = torch.tensor(grad)
    return parameters


def count(parameters: list[Tensor], what=torch.isnan) -> int:
    """How many gradient entries are NaN, or what else is asked."""
    return sum(int(what(p.grad).sum()) for p in parameters)


@claim(
    "G71",
    chinese="裁剪可能掩盖NaN",
    english="Clipping may hide a NaN.",
    where="3.4 clipping hides NaN",
    verdict="false",
)
def clipping_hides_a_nan(bad: float = torch.nan) -> Ruling:
    """One bad entry of five, clipped by norm; then an Inf, and a finite 1e20."""
    parameters = given([1.0, 2.0, 3.0], [bad, 1.0])
    norm = float(clip_grad_norm_(parameters, 1.0))
    nans = count(parameters)
    with_inf, finite = given([1.0, 2.0, 3.0], [INF, 1.0]), given([1.0, 2.0, 3.0], [1e20, 1.0])
    clip_grad_norm_(with_inf, 1.0), clip_grad_norm_(finite, 1.0)
    zeros = count(finite, lambda g: g == 0)
    clip_grad_value_(by_value := given([1.0, torch.nan, INF]), 1.0)
    hidden = nans == 0 and norm == norm
    return truth(hidden), (
        f"It spreads it: one NaN of 5 entries gives the norm {norm:g} and {nans} NaN; one Inf "
        "gives "
        f"{count(with_inf)} NaN and zeros; what it hides is a finite 1e20, which makes {zeros} of "
        "5 "
        f"exactly 0; clipping by value leaves {count(by_value)} NaN and turns Inf into 1."
    )


def guides(parameters: list[Tensor]) -> None:
    """The guide's order: clip, then look at the norm that came back."""
    if not clip_grad_norm_(parameters, 1.0).isfinite():
        raise RuntimeError("gradient not finite")


@claim(
    "G72",
    chinese="✅ 正确: 先检测再裁剪",
    english="The guide's code detects first and clips afterwards.",
    where="3.4 right way",
    verdict="false",
)
def the_code_detects_before_it_clips(code=guides) -> Ruling:
    """One bad tensor of three: how many are bad when the error is raised, three ways."""

    def left(code) -> tuple[str, int]:
        parameters = given([1.0], [torch.nan], [2.0])
        return error_of(lambda: code(parameters)), count(parameters)

    def looks_first(parameters) -> None:
        total = get_total_norm([p.grad for p in parameters])
        if not total.isfinite():
            raise RuntimeError("gradient not finite")
        clip_grads_with_norm_(parameters, 1.0, total)

    (error, now), (_, first) = left(code), left(looks_first)
    _, built_in = left(lambda p: clip_grad_norm_(p, 1.0, error_if_nonfinite=True))
    return truth(error != "" and now == 1), (
        f"It clips first: when {error} is raised, {now} of 3 gradients are NaN and the culprit "
        "cannot "
        f"be found; with error_if_nonfinite=True {built_in} of 3 is, and with get_total_norm first "
        f"{first}."
    )


@claim(
    "G73",
    chinese="if torch.isnan(total_norm) or torch.isinf(total_norm):",
    english="A total norm of NaN or Inf tells that a gradient is abnormal.",
    where="3.4 right way, the check",
    verdict="holds with a condition",
)
def a_bad_norm_tells_a_bad_gradient(dtype: torch.dtype = torch.float32) -> Ruling:
    """NaN and Inf entries; finite ones whose squares overflow; a gradient that is exactly 0."""

    def alarm(*entries: float) -> bool:
        return not bool(get_total_norm([torch.tensor(entries, dtype=dtype)]).isfinite())

    caught = alarm(torch.nan, 1.0) and alarm(1.0, INF)
    false = edge(lambda g: alarm(float(g), 1.0), 1.0, 1e38)[1] if alarm(1e38, 1.0) else INF
    zero = alarm(0.0, 0.0)
    return truth(caught and false == INF and zero, sometimes=caught), (
        f"Every NaN and Inf is told; but so is a finite entry from {false:.3g}, whose square "
        f"overflows, and a gradient that is exactly 0 {'is told' if zero else 'is not'}."
    )


@claim(
    "G86",
    chinese="监控梯度范数: 是否异常大或异常小",
    english="Watch the gradient norm for values that are abnormally large or small.",
    where="quick reference, during training",
    verdict="holds",
)
def the_norm_shows_large_and_small() -> Ruling:
    """What clip_grad_norm_ returns for a large, a small and a plain gradient."""
    large, plain, small = (given([3.0 * s, 4.0 * s]) for s in (1e6, 1.0, 1e-6))
    norms = [float(clip_grad_norm_(parameters, 1.0)) for parameters in (large, plain, small)]
    clipped = float(get_total_norm([p.grad for p in large]))
    right = [abs(n / (5 * s) - 1) < 1e-6 for n, s in zip(norms, (1e6, 1.0, 1e-6), strict=True)]
    return truth(all(right)), (
        f"clip_grad_norm_ gives the norm before clipping, {norms[0]:.0e}, {norms[1]:g} and "
        f"{norms[2]:.0e}, and leaves a gradient of length {clipped:.2f}: log what it returns."
    )


@claim(
    "D24",
    english="Clipping the norm makes a large gradient harmless.",
    verdict="false",
)
def clipping_makes_a_large_gradient_harmless(spike: float = 1e6, each: bool = False) -> Ruling:
    """A parameter that has to learn 1, beside one whose gradient is always large."""

    def learnt(spike: float, each: bool) -> float:
        a, b = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
        optimizer = torch.optim.SGD([a, b], 0.1)
        for _ in range(100):
            optimizer.zero_grad()
            ((a - 1).square() / 2 + spike * b).sum().backward()
            for group in [[a], [b]] if each else [[a, b]]:
                clip_grad_norm_(group, 1.0)
            optimizer.step()
        return float(a.detach())

    alone, starved, own = learnt(0.0, False), learnt(spike, each), learnt(spike, True)
    return truth(starved > 0.9 * alone), (
        f"After 100 steps a parameter that should be 1 is {alone:.3f}; beside one with the "
        "gradient "
        f"{spike:.0e} it is {starved:.0e}, as clipping scales all alike; clipped by itself "
        f"{own:.3f}."
    )
