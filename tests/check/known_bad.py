"""Answers that look like repairs and are none. Each takes a failure and gives a function."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

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
    """The right value, from a clamp that is flat everywhere."""

    def clamped(*values: Tensor) -> Tensor:
        right = answer(failure)(*values)
        beyond = 2 * right.detach().abs().max() + 1.0  # 1 more is no more where values are large
        return right.detach() + (right.clamp(min=beyond) - beyond)

    return clamped


def float64(failure: ModuleType) -> Callable:
    """Moves the edge."""

    def wide(*values: Any) -> Tensor:
        return broken(failure)(*(v.double() if isinstance(v, Tensor) else v for v in values))

    return wide


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


KNOWN_BAD = {  # by what the message may say, if it is not the one that the broken form gets
    nan_to_num: (),
    eps_too_small: (),
    detach: ("cuts the graph",),
    flat_clamp: ("exactly zero",),
    float64: ("Another dtype moves the edge",),
    constant: ("cuts the graph",),
    tiny_constant: ("healthy must come out as it went in", "far from float64"),
    in_place: ("make a new tensor",),
    numpy: ("cuts the graph",),
}
