"""Run the same computation again with the same random numbers and the same buffers."""

import random
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Generator, nn


def random_state(generators: Iterable[Generator] = ()) -> dict[str, Any]:
    """State of every generator that a training step may draw from; plain tensors and numbers.

    Args:
        generators: those of your own; torch's, numpy's and Python's global ones are always in.
    """
    numpy = sys.modules.get("numpy")
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "python": _plain(random.getstate()),
        "numpy": _plain(numpy.random.get_state()) if numpy else None,
        "own": [generator.get_state() for generator in generators],
    }


def set_random_state(state: dict[str, Any], generators: Iterable[Generator] = ()) -> None:
    """Put back what `random_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    numpy = sys.modules.get("numpy")
    if numpy and state["numpy"]:
        numpy.random.set_state(tuple(state["numpy"]))
    for generator, own in zip(generators, state["own"], strict=True):
        generator.set_state(own)


def _plain(value: Any) -> Any:
    """Tuples and arrays as lists, so that a file of them loads without running code."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


class SameNoise:
    """Remembers generators and buffers; `again()` puts them back.

    Breaks when: the program draws from a generator that is not named, or keeps state of its own
    in Python attributes.
    """

    def __init__(self, model: nn.Module | None = None, generators: Iterable[Generator] = ()):
        self.generators = list(generators)
        self.state = random_state(self.generators)
        buffers = list(model.buffers()) if model is not None else []
        self.buffers = [(buffer, buffer.detach().clone()) for buffer in buffers]

    def again(self) -> None:
        """Everything as it was."""
        set_random_state(self.state, self.generators)
        with torch.no_grad():
            for buffer, old in self.buffers:
                if not torch.equal(buffer, old):
                    buffer.copy_(old)

    def __enter__(self) -> "SameNoise":
        return self

    def __exit__(self, *_) -> None:
        self.again()
