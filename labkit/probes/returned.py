"""Which of the things that a step returns is its loss."""

import inspect
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from labkit.probes.flow import spread

NAMES = ("loss", "total_loss", "train_loss")  # looked for first, in this order


def loss_of(value: Any, tape) -> Tensor | None:
    """The loss in what a step returned, None where nothing of it can be one.

    A tensor is the loss. Of several things it is the one called ``loss``, ``total_loss`` or
    ``train_loss``, or else the one number with a graph, or that of them which is made of all
    the others.

    Args:
        value: a tensor, a tuple, a dict, an object with a ``loss``, or anything else.
        tape: of the trace, which knows what was made of what.

    Raises:
        TypeError: the step is a generator or a coroutine, so nothing ran.
        ValueError: there is a graph and no loss, or several that may be one.
    """
    _check(value)
    named = None if isinstance(value, Tensor) else _named(value)
    if named is not None or isinstance(value, Tensor):
        loss = value if named is None else named
        if loss.requires_grad and loss.numel() != 1:
            raise _wrong(value, tape)
        if loss.is_meta:
            raise ValueError("step: expected a loss with a value; got one on the meta device")
        return loss
    found = list(_tensors(value))
    graphs = [tensor for tensor in found if tensor.requires_grad]
    numbers = [tensor for tensor in graphs if tensor.numel() == 1]
    if graphs:
        whole = numbers if len(numbers) == 1 else _made_of_all(numbers, tape)
        if not whole:
            raise _wrong(value, tape)
        return whole[0]
    plain = [t for t in found if t.numel() == 1 and t.is_floating_point()]
    return plain[0] if plain else None


def bad_numbers(value: Any, tape) -> Iterator[Tensor]:
    """Numbers with a graph among what a step returned that are not finite."""
    for tensor in _tensors(value):
        known = tape.known.get(id(tensor)) if tensor.requires_grad else None
        if known is not None and tensor.numel() == 1 and known.stats.bad:
            yield tensor


def shape_of(value: Any) -> str:
    """What was returned, in words: ``a dict with the keys total, logits``."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, dict):
        return f"a dict with the keys {', '.join(map(str, value))}" if value else "an empty dict"
    if isinstance(value, list | tuple):
        kinds = ", ".join(_brief(item) for item in value)
        return f"a {type(value).__name__} of {kinds}" if value else "nothing"
    return "None" if value is None else f"a {type(value).__name__}"


def _brief(item: Any) -> str:
    return shape_of(item) if isinstance(item, Tensor) else type(item).__name__


def _check(value: Any) -> None:
    if inspect.isgenerator(value) or inspect.iscoroutine(value):
        value.close()
        raise TypeError(
            "step: expected a function that runs one training step; it made a "
            f"{type(value).__name__}, and nothing has run yet. Without yield or async it would run"
        )


def _named(value: Any) -> Tensor | None:
    """What bears the name of a loss."""
    if isinstance(value, dict):
        found = (value.get(name) for name in NAMES)
    else:
        found = (getattr(value, name, None) for name in NAMES)
    return next((thing for thing in found if isinstance(thing, Tensor)), None)


def _tensors(value: Any) -> Iterator[Tensor]:
    found = pytree.tree_leaves(dict(value) if isinstance(value, dict) else value)
    return (thing for thing in found if isinstance(thing, Tensor))


def _made_of_all(numbers: list[Tensor], tape) -> list[Tensor]:
    """The last of several numbers, if all the others went into it: a sum and its terms."""
    made = {tape.look(tensor, None).event: tensor for tensor in numbers}
    if not made:
        return []
    last = max(made)
    above = spread([last], lambda index: tape.events[index].parents)
    return [made[last]] if above >= set(made) else []


def _wrong(value: Any, tape) -> ValueError:
    count = sum(t.requires_grad and t.numel() == 1 for t in _tensors(value))
    several = f" with {count} numbers that may be one" if count > 1 else ""
    mean = ", for example with .mean()" if isinstance(value, Tensor) else ""
    return ValueError(
        f"step: expected a loss, one number; got {shape_of(value)}{several}. "
        f"Return the loss{mean}, or run its backward in the step"
    )
