"""What a user hands in: one thing or several, and what several models are called."""

from collections.abc import Iterable

from torch import nn


def named(given) -> dict[str, nn.Module]:
    """One model under no name; several by their keys, or by their place in a list.

    Args:
        given: a module, several in a list or a dict, or None.

    Raises:
        TypeError, ValueError: something else is among them, or it has no values (meta device).
    """
    if isinstance(given, dict):
        found = {f"{key}.{n}".rstrip("."): m for key, one in given.items() for n, m in _in(one)}
    else:
        found = dict(_in(given))
    for module in found.values():
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"model: expected a torch.nn.Module or several; got {type(module).__name__}. "
                "For bare tensors leave it out: every trainable leaf is reported."
            )
        _no_meta(module)
    return found


def _in(given) -> list[tuple[str, nn.Module]]:
    several = list(flat(given))
    return [(str(i) if len(several) > 1 else "", module) for i, module in enumerate(several)]


def _no_meta(module: nn.Module) -> None:
    name = next((name for name, p in module.named_parameters() if p.is_meta), None)
    if name is not None:
        raise ValueError(
            f"model: expected parameters with values; {name} is on the meta device, which holds "
            "none. Give it memory and values first: model.to_empty(device='cpu'), then initialise"
        )


def flat(thing) -> Iterable:
    """One thing or several, in containers or generators, one after the other."""
    if thing is None:
        return ()
    if isinstance(thing, dict):
        return [item for part in thing.values() for item in flat(part)]
    if isinstance(thing, list | tuple | set) or (
        hasattr(thing, "__next__") and not isinstance(thing, nn.Module)
    ):
        return [item for part in thing for item in flat(part)]
    return (thing,)
