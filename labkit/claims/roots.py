"""Square roots and powers: finite values with infinite slopes (guide, 2)."""

import torch

from labkit.claims.entry import HOLDS, INCOMPLETE, Ruling, claim, protection, truth
from labkit.claims.subjects import CLAMP_EDGE, normal, slope


@claim(
    "G23",
    chinese="`sqrt(x)` | x < 0 | - |",
    english="sqrt(x) is NaN for x < 0 and never Inf.",
    where="2 matrix, sqrt",
    verdict="holds with a condition",
)
def sqrt_is_nan_below_zero_and_never_inf(point: float = 0.0) -> Ruling:
    """Values of finite numbers; and the gradient at a point."""
    below = slope(torch.sqrt, -1.0)[0]
    finite = bool(torch.tensor([0.0, -0.0, 1e-45, 3e38]).sqrt().isfinite().all())
    (value, steep), minus = slope(torch.sqrt, point), slope(torch.sqrt, -point)[1]
    forward = below != below and finite
    return truth(forward and abs(steep) < float("inf"), sometimes=forward), (
        f"Forward it is so; but at {point:g}, where the value is {value:g}, the gradient is "
        f"{steep:g} "
        f"({minus:g} at minus that): sqrt breaks in backward."
    )


def guide_root(squared: torch.Tensor) -> torch.Tensor:
    """The guide's form: sqrt(clamp(x, 0))."""
    return squared.clamp(min=0).sqrt()


@claim(
    "G26",
    chinese="clamp x到>=0",
    english="clamp(min=0) makes sqrt safe.",
    where="2 matrix, sqrt, guard; quick reference",
    verdict=INCOMPLETE if CLAMP_EDGE else HOLDS,
)
def clamp_makes_sqrt_safe(root=guide_root, clouds: int = 20) -> Ruling:
    """A negative argument; then the distances of random clouds to themselves, by |x|² + |y|² - 2xy.

    All hinges on what clamp hands back exactly at 0. Where it is 0, the root's infinite slope is
    dropped there, and the claim holds.
    """
    value, dead = slope(root, -1.0)
    steep = slope(root, 0.0)[1]
    poisoned = sum(not _finite_gradient(root, normal(64, 8, seed=s)) for s in range(clouds))
    return protection(stops=value == value, leaks=poisoned > 0), (
        f"At -1 the value is {value:g} with the gradient {dead:g}; at 0 this torch's clamp passes "
        f"a gradient of {CLAMP_EDGE:g}, so the root's is {steep:g}, and {poisoned} of {clouds} "
        "clouds' "
        "distances to themselves have a finite mean and NaN or Inf gradients."
    )


def _finite_gradient(root, points: torch.Tensor) -> bool:
    x = points.clone().requires_grad_()
    squares = x.square().sum(1, keepdim=True) + x.square().sum(1) - 2 * x @ x.t()
    return bool(torch.autograd.grad(root(squares).mean(), x)[0].isfinite().all())


@claim(
    "G33",
    chinese="`x ** y` | x<0且y非整数",
    english="x**y is NaN for x < 0 with y no integer.",
    where="2 matrix, power, NaN",
    verdict="holds with a condition",
)
def a_power_is_nan_for_negative_base_and_fraction(y: float = 2.0) -> Ruling:
    """Values; then gradients where the value is finite."""
    fraction, whole = (float(torch.tensor(-2.0) ** e) for e in (0.5, 3.0))
    forward = fraction != fraction and whole == -8
    value, in_exponent = slope(lambda e: torch.tensor(-2.0) ** e, y)
    root, at_zero = slope(lambda x: x.abs() ** (1 / 3), 0.0)
    clean = in_exponent == in_exponent and at_zero == at_zero
    return truth(forward and clean, sometimes=forward), (
        f"Forward it is so; but (-2)**{y:g} is {value:g} with the gradient {in_exponent:g} in the "
        f"exponent, and |x|**(1/3) at 0 is {root:g} with the gradient {at_zero:g}."
    )


@claim(
    "G34",
    chinese="指数很大",
    english="x**y is Inf for a large exponent.",
    where="2 matrix, power, Inf",
    verdict="holds with a condition",
)
def a_power_is_inf_for_a_large_exponent(bases: tuple[float, ...] = (2.0, 0.5, 1.0)) -> Ruling:
    """Bases above, below and at 1 to a large exponent; 0 to a negative one."""
    large = {x: float(torch.tensor(x) ** 1000.0) for x in bases}
    inf = [v == float("inf") for v in large.values()]
    zero, steep = float(torch.tensor(0.0) ** -1), slope(lambda x: x**0.5, 0.0)[1]
    return truth(all(inf) and zero < float("inf"), sometimes=any(inf)), (
        ", ".join(f"{x:g}**1000 is {v:g}" for x, v in large.items())
        + f"; 0**-1 is {zero:g} at a small exponent, and x**0.5 at 0 has the gradient {steep:g}."
    )
