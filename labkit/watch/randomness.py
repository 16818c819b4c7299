"""Every source of random numbers that a step may draw from, saved and put back."""

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Randomness:
    """States of the global generators of torch, numpy and Python, and of the user's own."""

    torch: Tensor
    python: tuple
    numpy: dict | None
    cuda: tuple[Tensor, ...]
    own: tuple[Any, ...]

    @classmethod
    def now(cls, generators: Sequence[Any] = ()) -> "Randomness":
        """The states at this moment.

        Args:
            generators: torch, numpy or Python generators that belong to the program.
        """
        numpy = sys.modules.get("numpy")
        cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
        return cls(
            torch.get_rng_state(),
            random.getstate(),
            numpy.random.get_state(legacy=False) if numpy else None,
            tuple(torch.cuda.get_rng_state_all()) if cuda else (),
            tuple(_state(generator) for generator in generators),
        )

    def restore(self, generators: Sequence[Any] = ()) -> None:
        """Put the states back; `generators` as they were given to `now`."""
        torch.set_rng_state(self.torch)
        random.setstate(self.python)
        if self.numpy is not None:
            sys.modules["numpy"].random.set_state(self.numpy)
        if self.cuda:
            torch.cuda.set_rng_state_all(list(self.cuda))
        for generator, state in zip(generators, self.own, strict=True):
            _set_state(generator, state)


def is_generator(thing: Any) -> bool:
    """Is this an object whose only state is that of its random numbers?"""
    return isinstance(thing, torch.Generator | random.Random) or hasattr(thing, "bit_generator")


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return (
        generator.getstate()
        if isinstance(generator, random.Random)
        else generator.bit_generator.state
    )


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.bit_generator.state = state
