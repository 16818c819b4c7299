"""All that decides the next step and belongs to the program: taken as a copy, put back in place."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from labkit.watch.check import all_finite, bad_names, word

Snapshot = dict[str, Any]  # parameters, gradients, buffers, optimizers, kept: nested copies


def cloned(tree: Any) -> Any:
    """A copy of nested dicts, lists and tuples whose tensors share nothing with the original."""
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, dict):
        return {key: cloned(value) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(map(cloned, tree))
    return tree


class Holdings:
    """Models, optimizers and everything else with a ``state_dict``.

    Args:
        named: models by name, each with its parameters and buffers.
        optimizers: each with its state, its groups and the parameters that no model has.
        kept: scaler, schedulers and whatever else the step changes.
    """

    def __init__(self, named: dict[str, nn.Module], optimizers: Sequence[Any], kept: Sequence[Any]):
        self.named, self.models = named, list(named.values())
        self.optimizers, self.kept = optimizers, kept
        self.refresh()
        # A mask of -inf is meant to be so; a NaN never is.
        self._meant = {name for name, buffer in self.buffers().items() if word(buffer) == "inf"}

    def refresh(self) -> None:
        """Look again for parameters and buffers: a program may add some."""
        named = [
            (n, p) for title, m in self.named.items() for n, p in m.named_parameters(prefix=title)
        ]
        known = {id(parameter) for _, parameter in named}
        for i, optimizer in enumerate(self.optimizers):
            for j, parameter in enumerate(owned(optimizer)):
                if id(parameter) not in known:
                    known.add(id(parameter))
                    named.append((f"optimizers[{i}].parameter[{j}]", parameter))
        self.parameters: dict[str, Tensor] = dict(named)
        self.names = {id(parameter): name for name, parameter in named}
        self._buffers = [
            (f"{path}.{name}".lstrip("."), module, name)
            for title, model in self.named.items()
            for path, module in model.named_modules(prefix=title)
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]

    def buffers(self) -> dict[str, Tensor]:
        """Running means and the like, those that are not saved in a ``state_dict`` too."""
        return {full: module._buffers[name] for full, module, name in self._buffers}

    def versions(self) -> list[int]:
        """They change when a parameter is written to."""
        return [parameter._version for parameter in self.parameters.values()]

    def gradients(self) -> dict[str, Tensor | None]:
        """What hangs on the parameters now."""
        return {name: parameter.grad for name, parameter in self.parameters.items()}

    def take(self) -> Snapshot:
        """A full copy."""
        return {
            "parameters": cloned(self.parameters),
            "gradients": cloned(self.gradients()),
            "optimizers": [_optimizer(optimizer) for optimizer in self.optimizers],
            **self.take_light(),
        }

    def take_light(self) -> Snapshot:
        """A copy of what a forward pass alone can change."""
        kept = [cloned(thing.state_dict()) for thing in self.kept]
        return {"buffers": cloned(self.buffers()), "kept": kept}

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Put a copy back, into the same tensors; what it does not hold stays as it is."""
        for name, value in snapshot.get("parameters", {}).items():
            self.parameters[name].copy_(value)
        for name, value in snapshot.get("gradients", {}).items():
            self.parameters[name].grad = cloned(value)
        for optimizer, saved in zip(self.optimizers, snapshot.get("optimizers", ()), strict=False):
            _restore_optimizer(optimizer, saved)
        for full, module, name in self._buffers:
            if full in snapshot["buffers"]:
                saved = snapshot["buffers"][full]
                module._buffers[name] = _into(module._buffers[name], saved)
        for thing, state in zip(self.kept, snapshot["kept"], strict=True):
            thing.load_state_dict(cloned(state))

    def clear_gradients(self) -> None:
        """Every ``.grad`` becomes None."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def finite(self) -> bool:
        """Parameters, buffers and optimizer state, by their sums."""
        return all_finite(self._state().values())

    def bad(self) -> list[str]:
        """Names of what is not finite in parameters, buffers and optimizer state."""
        return bad_names(self._state())

    def _state(self) -> dict[str, Tensor]:
        buffers = {n: buffer for n, buffer in self.buffers().items() if n not in self._meant}
        state = {**self.parameters, **buffers}
        for optimizer in self.optimizers:
            for parameter, slots in optimizer.state.items():
                owner = self.names.get(id(parameter), "?")
                for name, value in slots.items() if isinstance(slots, dict) else ():
                    if isinstance(value, Tensor):
                        state[f"{name} of {owner}"] = value
        return {n: t for n, t in state.items() if t.is_floating_point() or t.is_complex()}


def owned(optimizer: Any) -> Iterable[Tensor]:
    """The parameters of an optimizer, in the order of its groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _optimizer(optimizer: Any) -> dict:
    state = [cloned(optimizer.state.get(parameter)) for parameter in owned(optimizer)]
    groups = [{k: cloned(v) for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    return {"state": state, "groups": groups}


def _restore_optimizer(optimizer: Any, saved: dict) -> None:
    # Not load_state_dict: it casts the state to the parameter's dtype and shares tensors.
    for parameter, slots in zip(owned(optimizer), saved["state"], strict=True):
        if slots is None:
            optimizer.state.pop(parameter, None)
        else:
            old = optimizer.state.get(parameter) or {}
            optimizer.state[parameter] = {k: _into(old.get(k), v) for k, v in slots.items()}
    for group, values in zip(optimizer.param_groups, saved["groups"], strict=True):
        group.update({key: _into(group.get(key), value) for key, value in values.items()})


def _into(old: Any, saved: Any) -> Any:
    """The saved value, written into the tensor that is there if it fits."""
    fits = isinstance(old, Tensor) and isinstance(saved, Tensor)
    if fits and (old.shape, old.dtype) == (saved.shape, saved.dtype):
        return old.copy_(saved)
    return cloned(saved)
