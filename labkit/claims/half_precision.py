"""Half precision: optimizer steps, updates and counts that it cannot hold; the loss scaler."""

import torch

from labkit.claims.entry import Ruling, claim, truth
from labkit.claims.optimizer_state import one, stepped
from labkit.claims.subjects import DTYPES, name
from labkit.models.likelihood import nb_log_likelihood_guide

INF = float("inf")


@claim(
    "D06",
    english="Adam's eps = 1e-8 protects its division in half precision.",
    verdict="false",
)
def adams_eps_protects_in_half_precision(eps: float = 1e-8, gradient: float = 1e-3) -> Ruling:
    """One step from an ordinary gradient in each dtype."""
    after = {}
    for dtype in DTYPES[:3]:
        w = one(dtype=dtype)
        after[name(dtype)] = stepped(torch.optim.Adam([w], lr=0.01, eps=eps), w, [gradient])
    return truth(abs(after["float16"]) < INF), (
        f"A parameter of 1 is after one step with the gradient {gradient:g} and eps = {eps:.0e} "
        + ", ".join(f"{v:.3g} in {dtype}" for dtype, v in after.items())
        + ": in float16 the gradient's square is 0, and so is that eps."
    )


@claim(
    "D11",
    english="GradScaler takes care of infinite gradients.",
    verdict="false",
)
def the_scaler_takes_care(bad_steps: int = 166, limit: int | None = None) -> Ruling:
    """Steps that all have an infinite gradient, then a good one; the scaler's arithmetic on CPU."""
    w = one()
    optimizer = torch.optim.SGD([w], 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    scaler.scale(torch.zeros(1))  # makes the scale a tensor
    for _ in range(min(bad_steps, limit or bad_steps)):
        w.grad = torch.full_like(w, INF)
        scaler.step(optimizer)
        scaler.update()
    waited, scale = float(w.detach()), scaler.get_scale()
    w.grad = torch.ones_like(w) * scale
    scaler.step(optimizer)
    after = float(w.detach())
    return truth(after == after), (
        f"It skips each of {bad_steps} bad steps in silence (the parameter stays {waited:g}) and "
        f"halves the scale down to {scale:g}; the next good step makes the parameter {after:.2g}."
    )


@claim(
    "D19",
    english="A gradient that is not 0 changes the weight.",
    verdict="false",
)
def a_gradient_changes_the_weight(dtype: torch.dtype = torch.bfloat16, lr: float = 1e-3) -> Ruling:
    """A weight of 1 and 1000 steps of lr times a gradient of 1: it should end at 0."""

    def after(dtype: torch.dtype) -> float:
        w = torch.ones((), dtype=dtype)
        for _ in range(1000):
            w = w - lr
        return float(w)

    ends = {name(d): after(d) for d in (dtype, torch.float16, torch.float32)}
    gap = torch.finfo(dtype).eps / 4  # below 1 the numbers lie half as wide, and rounding halves it
    return truth(ends[name(dtype)] != 1.0), (
        f"1000 steps of {lr:g} take a weight of 1 to "
        + ", ".join(f"{v:.3f} in {d}" for d, v in ends.items())
        + f": {name(dtype)} ignores every step below {gap:.1g}, with a gradient that is alive."
    )


@claim(
    "D20",
    english="Counts can be cast to the dtype of the computation.",
    verdict="false",
)
def counts_can_be_cast(dtype: torch.dtype = torch.bfloat16) -> Ruling:
    """The first whole number that a dtype skips; the score of a count of 1001 at mu = 1000."""

    def first_lost(dtype: torch.dtype) -> int:
        power = 1
        while float(torch.tensor(float(power + 1), dtype=dtype)) == power + 1:
            power *= 2
        return power + 1

    def score(dtype: torch.dtype) -> float:
        return float(nb_log_likelihood_guide(*torch.tensor([1001.0, 1000.0, 10.0]).to(dtype)))

    lost = {name(d): first_lost(d) for d in DTYPES}
    off = abs(score(dtype) - score(torch.float64))
    return truth(off < 0.01 and lost[name(dtype)] > 1e6), (
        "Not every whole number is there from "
        + ", ".join(f"{lost[name(d)]} in {name(d)}" for d in DTYPES[:3])
        + f"; the log-probability of a count of 1001 is off by {off:.2g} in {name(dtype)}."
    )
