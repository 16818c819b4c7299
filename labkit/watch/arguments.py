"""What may be handed to `watch`, and what is said about the rest."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from labkit.probes.given import named
from labkit.probes.returned import NAMES
from labkit.watch.course import plain
from labkit.watch.holdings import owned
from labkit.watch.randomness import is_generator

CHOICES = ("raise", "skip", "rollback")
SKIPS = 10  # refusals of a GradScaler in a row: the scale is 1000 times smaller by then


def several(thing: Any) -> list:
    """One or several as a list."""
    if isinstance(thing, dict):
        return list(thing.values())
    return list(thing) if isinstance(thing, list | tuple | set) else [thing]


def models(given: Any) -> dict[str, nn.Module]:
    """Modules by name, as the tracer names them, without the wrapper of `torch.compile`."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        raise ValueError(
            "watch: expected training in one process; a process group is initialised. "
            "A replay on one rank would wait for the others forever."
        )
    found = named(given)
    for model in found.values():
        for name, parameter in model.named_parameters():
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise ValueError(
                    f"model: expected initialised parameters; {name} is lazy. "
                    "Run one batch through the model first."
                )
    return {title: plain(model) for title, model in found.items()}


def compiled(models: Any, step: Any) -> bool:
    """Is a model, a part of one, or the step wrapped by `torch.compile`?"""
    modules = [m for model in several(models) if model is not None for m in model.modules()]
    return hasattr(step, "_torchdynamo_orig_callable") or any(
        hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in modules
    )


def optimizers(given: Any, models: list[nn.Module]) -> list:
    """Optimizers: at least one, and one at least of these models."""
    found = several(given)
    if not found:
        raise ValueError("optimizers: expected at least one; got none")
    for optimizer in found:
        if not hasattr(optimizer, "register_step_pre_hook"):
            raise TypeError(
                f"optimizers: expected torch.optim optimizers; got {type(optimizer).__name__}"
            )
    ours = {id(p) for model in models for p in model.parameters()}
    if ours and not any(id(p) in ours for optimizer in found for p in owned(optimizer)):
        kinds = ", ".join(type(optimizer).__name__ for optimizer in found)
        raise ValueError(
            f"optimizers: expected one that holds parameters of this model; {kinds} holds none of "
            "them. Build it from model.parameters(), after the model is built, copied or moved."
        )
    return found


def kept(keep: Any, scaler: Any) -> list:
    """The scaler first, then the rest."""
    if scaler is not None and not hasattr(scaler, "get_scale"):
        raise TypeError(f"scaler: expected a torch.amp.GradScaler; got {type(scaler).__name__}")
    things = several(keep)
    for thing in things:
        if not is_generator(thing) and not hasattr(thing, "load_state_dict"):
            raise TypeError(
                "keep: expected generators and objects with state_dict and load_state_dict; "
                f"got {type(thing).__name__}"
            )
    return things if scaler is None else [scaler, *things]


def step(given: Any) -> Any:
    """A function, or None."""
    if given is not None and (not callable(given) or isinstance(given, nn.Module | Iterable)):
        raise TypeError(
            "step: expected a function that runs a whole training step; "
            f"got {type(given).__name__}. For a loop leave it out and use watched.over(batches)."
        )
    return given


def choice(word: Any) -> str:
    """One of three words."""
    if word not in CHOICES:
        raise ValueError(f"on_trigger: expected one of {', '.join(CHOICES)}; got {word!r}")
    return word


def whole(name: str, value: Any) -> int:
    """A whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: expected a whole number of at least 1; got {value!r}")
    return value


def loss(result: Any) -> Tensor | float | None:
    """The loss in what a step returns."""
    if isinstance(result, dict):
        result = next((result[name] for name in NAMES if name in result), None)
    if isinstance(result, list | tuple):
        result = next((thing for thing in result if _number(thing)), None)
    return result if isinstance(result, Tensor | float) else None


def _number(thing: Any) -> bool:
    return isinstance(thing, float) or (isinstance(thing, Tensor) and thing.numel() == 1)
