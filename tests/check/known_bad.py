"""Answers that look like repairs and are none. Each takes a failure and gives a function."""

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from labkit.check.fit import answer

TOO_SMALL = 1e-60  # rounds to zero in float32


def broken(failure: ModuleType) -> Callable:
    """The form that the failure is about."""
    return failure.FORMS[getattr(failure.CASES["broken"], failure.FORM_KNOB)]


def nan_to_num(failure: ModuleType) -> Callable:
    """Cleans up afterwards."""
    return lambda *values: torch.nan_to_num(broken(failure)(*values))


def eps_too_small(failure: ModuleType) -> Callable:
    """Adds what the dtype cannot hold."""
    return lambda value, *rest: broken(failure)(value + TOO_SMALL, *rest)


def detach(failure: ModuleType) -> Callable:
    """The right value, and no gradient."""
    return lambda *values: answer(failure)(*values).detach()


def flat_clamp(failure: ModuleType) -> Callable:
    """The right value, from a function that is flat outside its range."""

    def clamped(*values: Tensor) -> Tensor:
        right = answer(failure)(*values).detach()
        return broken(failure)(*values).clamp(right.min(), right.max())

    return clamped


def float64(failure: ModuleType) -> Callable:
    """Moves the edge."""
    return lambda value, *rest: broken(failure)(value.double(), *rest)


def constant(failure: ModuleType) -> Callable:
    """Never breaks, never learns."""
    return lambda *values: torch.zeros_like(answer(failure)(*values))


def tiny_constant(failure: ModuleType) -> Callable:
    """A constant in disguise: the graph is whole, the information is gone."""
    return lambda *values: answer(failure)(*values) * 1e-3


def in_place(failure: ModuleType) -> Callable:
    """Right, and it spoils the input of whoever comes next."""

    def edits(value: Tensor, *rest: Tensor) -> Tensor:
        out = answer(failure)(value, *rest)
        value.data.mul_(0.5)
        return out

    return edits


def numpy(failure: ModuleType) -> Callable:
    """Leaves autograd through NumPy."""
    return lambda *values: torch.from_numpy(answer(failure)(*values).detach().numpy())


LEFT_AS_IT_WAS = ""  # then the message is the one that the broken form gets
KNOWN_BAD = {  # by what the message must say
    nan_to_num: LEFT_AS_IT_WAS,
    eps_too_small: LEFT_AS_IT_WAS,
    detach: "cuts the graph",
    flat_clamp: "exactly zero",
    float64: "Another dtype moves the edge",
    constant: "cuts the graph",
    tiny_constant: "healthy must come out as it went in",
    in_place: "make a new tensor",
    numpy: "cuts the graph",
}
