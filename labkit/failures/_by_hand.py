"""Questions to a learner's function alone, on numbers that can be worked out by hand.

A model feeds a function what the model happens to hold, and a wrong one may be right there. Each
question takes the function and returns in one line what is wrong, or "" if nothing is.
"""

from collections.abc import Callable
from math import exp

import torch
from torch import Generator, Tensor, nn

Form = Callable[..., Tensor]
CLOSE = 1e-4  # relative, or absolute below 1; float32 rounding of a few operations stays near 1e-6
SIZED = 0.03  # of a weight's size; the size of 4096 normal draws is off by 0.01
PASSES = 0.5  # of a gradient: less is a leak
STOPPED = 1e-6  # of a gradient: no more is nothing
BELOW_3 = 3.0 - 2**-20  # four float32 below 3
CAPPED = (-60.0, -12.0, -9.5, 0.5, 9.5, 12.0, 60.0)


def difference_of_exponentials(form: Form) -> str:
    """exp(a) - exp(b) where b is not zero: its value and both slopes."""
    return _difference(form, 3.0, 1.0) or _difference(form, 1.0, 3.0)


def difference_of_neighbours(form: Form) -> str:
    """The same where a and b are near each other, and not near zero."""
    return _difference(form, 3.0, BELOW_3)


def _difference(form: Form, a: float, b: float) -> str:
    x, y = (torch.tensor([t], requires_grad=True) for t in (a, b))
    value = form(x, y)
    found = {"value": value}
    found["slope in a"], found["slope in b"] = _slopes(value, (x, y))
    meant = (exp(a) - exp(b), exp(a), -exp(b))
    for (name, is_), ought in zip(found.items(), meant, strict=True):
        if not abs(is_.item() - ought) <= CLOSE * abs(ought):
            here = f"at ({a:.7g}, {b:.7g})"
            return f"{here} the {name} is {is_.item():.4g}, and in truth {ought:.4g}"
    return ""


def cap(form: Form) -> str:
    """A log-variance far out: its value in [-10, 10], and a gradient that leads back passes."""
    return _capped(form, outward=False)


def inward_cap(form: Form) -> str:
    """The same, and outside a gradient that leads further out stops, on both sides."""
    return _capped(form, outward=False) or _capped(form, outward=True)


def _capped(form: Form, outward: bool) -> str:
    logvar = torch.tensor(CAPPED)[:, None].requires_grad_()
    value = form(logvar)
    back = logvar.detach().sign()  # a step goes against the gradient
    (slope,) = _slopes(value, (logvar,), -back if outward else back)
    passed = (slope * (-back if outward else back))[:, 0].tolist()
    for x, v, p in zip(CAPPED, value[:, 0].tolist(), passed, strict=True):
        if not abs(v) <= 10 + CLOSE:
            return f"{x:g} comes out as {v:g}, and not in [-10, 10]"
        if abs(x) < 10 and not abs(v - x) <= CLOSE * 10:
            return f"{x:g} is in the range, and comes out as {v:g}"
        if outward and abs(x) > 10 and not abs(p) <= STOPPED:
            return f"at {x:g} a gradient that leads further out passes"
        if not (outward and abs(x) > 10) and not p >= PASSES:
            return f"at {x:g} a gradient of 1 that leads back comes through as {p or 0.0:.2g}"
    return ""


def distances(form: Form) -> str:
    """A cell that is in both batches, and one that nearly is: values, and gradients finite."""
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    y = torch.tensor([[0.0, 0.0], [0.0, 2**-10]], requires_grad=True)
    value = form(x, y)
    meant = torch.linalg.vector_norm(x.double()[:, None] - y.double(), dim=-1)
    if not _close(value, meant, CLOSE / 10):
        return f"the distances are {_row(value)}, and in truth {_row(meant)}"
    finite = all(bool(slope.isfinite().all()) for slope in _slopes(value, (x, y)))
    return "" if finite else "two cells are in the same place, and the gradient is not finite"


def attention(form: Form) -> str:
    """Large scores of both signs, a short review and an empty one."""
    scores = torch.tensor([[100.0, 99.0, 98.0], [-100.0, -99.0, -98.0], [1.0, 2.0, 3.0], [1.0] * 3])
    mask = torch.tensor([[True] * 3, [True] * 3, [True, True, False], [False] * 3])
    scores.requires_grad_()
    value = form(scores, mask)
    hidden = scores.double().masked_fill(~mask, -torch.inf)
    meant = torch.softmax(hidden, 1).nan_to_num()
    for row, wrong in enumerate(~torch.isclose(value.double(), meant, CLOSE, CLOSE)):
        if wrong.any():
            words = f"scores {_row(scores[row])} get the weights {_row(value[row])}"
            return f"{words}, and in truth {_row(meant[row])}"
    (slope,) = _slopes(value, (scores,))
    return "" if slope.isfinite().all() else "the weights are right, a gradient is not finite"


def scaled_down(form: Form) -> str:
    """Two conditions at once, one with a norm above 1: A times min(1, 1 / its own norm)."""
    first = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.5]])
    basis = torch.stack([first, torch.eye(3).roll(1, 0) / 2])
    alpha = torch.tensor([[1.0, 0.5], [0.2, -0.1]])
    A = torch.einsum("ck,kij->cij", alpha, basis).double()
    norms = torch.linalg.matrix_norm(A, 2)
    meant = A / norms.clamp(min=1)[:, None, None]
    found = form(alpha, basis)
    if _close(found, meant, 10 * CLOSE):  # also after a power iteration
        return ""
    are, were, ought = (
        _row(torch.linalg.matrix_norm(t.detach().double(), 2)) for t in (found, A, meant)
    )
    told = f"two conditions of norm {were} come out with norm {are}"
    return f"{told}, and in truth {ought}" if are != ought else f"{told}, but turned"


def question(form: Callable[[dict[str, Tensor], Tensor], bool]) -> str:
    """Two parameters, two inputs: only one thing is bad at a time, or nothing."""
    for name, (place, bad, green) in _SPOILT.items():
        gradients = {"weight": torch.tensor([[1.0, 0.0], [2.0, -1.0]]), "bias": torch.ones(2, 1)}
        losses = torch.ones(2)
        if place == "losses":
            losses[1] = bad
        elif place:
            gradients[place][0] = bad
        if bool(form(gradients, losses)) != green:
            return f"{name}: it is {'red' if green else 'green'}"
    return ""


_SPOILT = {  # what is told: where, what, and is the test green?
    "nothing is wrong, one entry of a gradient is 0": ("", 0.0, True),
    "one loss is Inf, nothing is NaN": ("losses", torch.inf, False),
    "one loss is -Inf, nothing is NaN": ("losses", -torch.inf, False),
    "one loss alone is NaN": ("losses", torch.nan, False),
    "one gradient is Inf, nothing is NaN": ("bias", torch.inf, False),
    "one gradient alone is NaN": ("bias", torch.nan, False),
    "one parameter is dead on real cells, and alive on the other input": ("weight", 0.0, False),
}


def told_norm(form: Callable[[list[nn.Parameter], float, float], float]) -> str:
    """One gradient of five times the bound, in a scaled loss: the norm is told as it was found."""
    long, short = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    long.grad, short.grad = torch.tensor([12.0, 16.0]), torch.tensor([4.0])
    told = form([long, short], 1.0, 4.0)
    if isinstance(told, (int, float)) and told >= 5 * (1 - CLOSE):
        return ""  # the largest of the two, the norm of both, or their sum
    return f"a gradient of length 5 meets a bound of 1, and the norm returned is {told}"


def he_size(form: Form) -> str:
    """Weights of two shapes and for two gains: their mean square is 2 / fan_in."""
    for fan_in in (768, 64):
        noise = torch.randn(64, fan_in, generator=Generator().manual_seed(1))
        for gain in (0.4, 2.0):
            size = float((form(noise, gain).detach().square().mean() * fan_in / 2).sqrt())
            if not abs(size - 1) <= SIZED:
                where = f"of {fan_in} inputs at a gain of {gain:g}"
                return f"weights {where} are {size:.2f} times as large as they should be"
    return ""


def _slopes(
    value: Tensor, inputs: tuple[Tensor, ...], grad: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Of the sum, or against `grad`; zeros where no gradient comes through."""
    if not value.requires_grad:
        return tuple(torch.zeros_like(t) for t in inputs)
    grad = torch.ones_like(value) if grad is None else grad
    return torch.autograd.grad(value, inputs, grad, allow_unused=True, materialize_grads=True)


def _close(found: Tensor, meant: Tensor, much: float) -> bool:
    return torch.allclose(found.detach().double(), meant.detach(), rtol=much, atol=much)


def _row(values: Tensor) -> str:
    return ", ".join(f"{v:.3g}" for v in values.flatten().tolist())
