"""One watched batch: all that is needed to run its step again."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from labkit.watch.randomness import Randomness


@dataclass(eq=False, slots=True)
class Entry:
    """A batch, and the random numbers that its step began with."""

    number: int
    args: tuple
    kwargs: dict
    randomness: Randomness
    versions: list[int] | None  # of the batch's tensors; None: it is a copy of our own
    stepped: bool = False  # an optimizer step followed, so the next batch begins a new window

    def arguments(self) -> tuple[tuple, dict]:
        """What to hand to the step when it runs again."""
        if self.versions is not None:
            return self.args, self.kwargs
        with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
            return copy.deepcopy((self.args, self.kwargs))  # a tracer that runs must not see it

    @property
    def modified(self) -> bool:
        """Was a tensor of the batch written to since the step began?"""
        return self.versions is not None and self.versions != versions((self.args, self.kwargs))


def copied(args: tuple, kwargs: dict, safe: bool) -> tuple[tuple, dict]:
    """The batch itself, or a copy that the step cannot write into."""
    return copy.deepcopy((args, kwargs)) if safe else (args, kwargs)


def versions(tree: Any) -> list[int]:
    """They change when a tensor is written to."""
    return [0 if tensor.is_inference() else tensor._version for tensor in tensors(tree)]


def tensors(tree: Any, depth: int = 6) -> Iterator[Tensor]:
    """Every tensor of a batch: in dicts, sequences, dataclasses and plain objects.

    Args:
        tree: the batch.
        depth: how deep to look; an object may refer to itself.
    """
    if isinstance(tree, Tensor):
        yield tree
    elif depth:
        for part in _parts(tree):
            yield from tensors(part, depth - 1)


def _parts(tree: Any) -> list:
    if isinstance(tree, dict):
        return list(tree.values())
    if isinstance(tree, list | tuple):
        return list(tree)
    if is_dataclass(tree) and not isinstance(tree, type):
        return [getattr(tree, part.name, None) for part in fields(tree)]
    if isinstance(tree, nn.Module | type) or not hasattr(tree, "__dict__") or callable(tree):
        return []
    return list(vars(tree).values())
