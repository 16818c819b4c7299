"""Energy distances: squares that overflow, roots at 0, digits that cancel, memory (guide, 2)."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from labkit.claims.entry import FALSE, HOLDS, Ruling, claim, truth
from labkit.claims.subjects import CLAMP_EDGE, edge, linear, name, normal, spoilt_gradients
from labkit.models.energy import energy_distance, energy_distance_guide

INF = float("inf")
Distance = Callable[[Tensor, Tensor], Tensor]


def clouds(seed: int = 0, rows: int = 64, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """Two clouds in 8 dimensions, a little apart."""
    x, y = normal(rows, 8, seed=seed), normal(rows, 8, seed=seed + 1) + 0.3
    return x + offset, y + offset


@claim(
    "G55",
    chinese="energy_distance计算 → dist过大 → overflow",
    english="The energy distance overflows where distances are too large.",
    where="2 operator path, distance",
    verdict="holds with a condition",
)
def a_distance_overflows_where_it_is_too_large(fraction: float = 0.1) -> Ruling:
    """The first |x - y| with an infinite distance, in the guide's form, beside the largest "
    "number."""

    def infinite(d: Tensor) -> bool:
        return bool(d.square().clamp(min=0).sqrt() == INF)

    first = {
        name(d): edge(infinite, 1.0, top, d)[1]
        for d, top in ((torch.float32, 3e38), (torch.float16, 6e4), (torch.bfloat16, 3e38))
    }
    early = first["float32"] < fraction * torch.finfo(torch.float32).max
    loss = float(energy_distance_guide(*(1e20 * c for c in clouds())))
    return truth(not early, sometimes=True), (
        f"It does, but it is the square that overflows: from |x - y| = {first['float32']:.2e} in "
        f"float32 and {first['float16']:.0f} in float16, where z is far from Inf; with z times "
        f"1e20 the loss is {loss:g}."
    )


@claim(
    "G56",
    chinese="loss=NaN → backward → 参数=NaN",
    english="loss = NaN makes the operator's parameters NaN.",
    where="2 operator path, backward",
    verdict="false",
)
def a_nan_loss_makes_the_parameters_nan(scale: float = 1e30) -> Ruling:
    """One backward of an operator at a large scale of z, by cdist and by the guide's distance."""
    far, by_cdist, steepest = _backward(scale, _cdist_energy)
    near, by_root, _ = _backward(1.0, energy_distance_guide)
    holds = far != far and len(by_cdist) == 2 and near == near and not by_root
    return truth(holds), (
        f"With z times {scale:.0e} the loss is {far:g} and {len(by_cdist)} of 2 gradients are bad, "
        f"their largest entry {steepest:g}; with z as it is and the guide's sqrt(clamp(.)) the "
        f"loss is {near:.3f} and "
        f"{len(by_root)} of 2 are bad: both directions fail."
    )


def _cdist_energy(x: Tensor, y: Tensor) -> Tensor:
    exact = partial(torch.cdist, compute_mode="donot_use_mm_for_euclid_dist")
    return 2 * exact(x, y).mean() - exact(x, x).mean() - exact(y, y).mean()


def _backward(scale: float, distance: Distance) -> tuple[float, list[str], float]:
    operator, (z, target) = linear(8, 8), clouds()
    loss = distance(operator(scale * z), target)
    loss.backward()
    steepest = max(float(p.grad.abs().max()) for p in operator.parameters())
    return float(loss.detach()), spoilt_gradients(operator), steepest


@claim(
    "D02",
    english="Training an operator on the guide's energy distance works.",
    verdict=FALSE if CLAMP_EDGE else HOLDS,  # see G26
)
def the_guides_distance_trains(distance: Distance = energy_distance_guide) -> Ruling:
    """20 steps of an operator from a distance and from the lab's."""
    (first, last, bad), (_, ours, _) = (
        _trained(distance),
        _trained(partial(energy_distance, biased=True)),
    )
    return truth(not bad and last < first), (
        f"The first loss is {first:.2f}, finite and plausible; after one step {bad} of 2 "
        "parameters "
        f"are NaN, and the loss ends at {last:g}; the lab's distance ends at {ours:.3f}."
    )


def _trained(distance: Distance) -> tuple[float, float, int]:
    """First and last loss, and how many parameters are bad after the first step."""
    operator, (z, target) = linear(8, 8), clouds()
    optimizer = torch.optim.Adam(operator.parameters(), lr=0.05)
    losses, bad = [], 0
    for step in range(20):
        optimizer.zero_grad()
        loss = distance(operator(z), target)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if step == 0:
            bad = sum(not bool(p.isfinite().all()) for p in operator.parameters())
    return losses[0], losses[-1], bad


@claim(
    "D03",
    english="The matrix form |x|² + |y|² - 2xy of the squared distance is accurate.",
    verdict="false",
)
def the_matrix_form_is_accurate(
    offset: float = 1000.0, dtype: torch.dtype = torch.float32
) -> Ruling:
    """Distances within a cloud of spread 0.1 at an offset, beside float64; then 25 and 26 rows."""
    x = (0.1 * normal(64, 8, dtype=torch.float64) + offset).to(dtype)
    squares = x.square().sum(1, keepdim=True) + x.square().sum(1) - 2 * x @ x.t()
    worst, zeros = _error(squares.clamp(min=0).sqrt(), x)
    few, many = (_error(torch.cdist(x[:n], x[:n]), x[:n])[0] for n in (25, 26))
    centred = _error(torch.cdist(x - x.mean(0), x - x.mean(0)), x)[0]
    return truth(worst < 1e-3), (
        f"At an offset of {offset:g} its largest relative error is {worst:.1g} and {zeros:.0%} of "
        "the "
        f"distances are 0; torch.cdist switches to it by itself: {few:.0e} at 25 rows, {many:.1g} "
        "at "
        f"26; on centred data {centred:.0e}."
    )


def _error(got: Tensor, x: Tensor) -> tuple[float, float]:
    """The largest relative error of the distances between different rows; the share of zeros."""
    apart = ~torch.eye(len(x), dtype=torch.bool)
    true = (x.double()[:, None] - x.double()).norm(dim=-1)[apart]
    found = got.double()[apart]
    return float(((found - true).abs() / true).max()), float((found == 0).double().mean())


@claim(
    "D22",
    english="The energy distance is not negative, so its square root is safe.",
    verdict="false",
)
def the_energy_distance_is_not_negative(biased: bool = False, draws: int = 40) -> Ruling:
    """Estimates for two samples of one distribution, 32 cells each."""
    pairs = [(normal(32, 8, seed=2 * s), normal(32, 8, seed=2 * s + 1)) for s in range(draws)]
    got = torch.stack([energy_distance(x, y, biased=biased) for x, y in pairs])
    other = torch.stack([energy_distance(x, y, biased=not biased) for x, y in pairs])
    share, spare = float((got < 0).float().mean()), float((other < 0).float().mean())
    kinds = ("biased", "unbiased") if biased else ("unbiased", "biased")
    return truth(share == 0), (
        f"Of {draws} {kinds[0]} estimates for equal distributions {share:.0%} are negative, and "
        f"their root is NaN; of the {kinds[1]} ones {spare:.0%}, but their mean is "
        f"{float(other.mean()):.2f} where the truth is 0."
    )
