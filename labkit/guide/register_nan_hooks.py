"""`register_nan_hooks`: stop at the module where a NaN or an infinity first shows itself."""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from labkit.guide.check_tensor import check_tensor
from labkit.guide.leaves import finite, leaves

_ACTIVE: WeakKeyDictionary[nn.Module, "NanHooks"] = WeakKeyDictionary()


class NanHooks:
    """The hooks of one model; removed by `remove()` or at the end of a ``with`` block."""

    def __init__(self, model: nn.Module, inf: bool = True, backward: bool = True):
        self.inf, self.backward = inf, backward
        self.found: list[str] = []  # the first line of each alarm
        self.handles = []
        for name, module in model.named_modules():
            hooks = _OfModule(self, name or "the model", module)
            self.handles += [
                module.register_forward_pre_hook(hooks.before, with_kwargs=True),
                module.register_forward_hook(hooks.after, with_kwargs=True),
            ]
        if backward:
            for name, p in model.named_parameters():
                if p.requires_grad:
                    self.handles.append(p.register_hook(self._gradient(f"gradient of {name}")))

    def check(self, name: str, value: Any) -> None:
        """Raise if a value of your own, such as a loss, is not finite."""
        for path, tensor in leaves(value):
            if self.bad(tensor):
                self.alarm(f"{name}{path}", tensor, [])

    def remove(self) -> None:
        """Take every hook off; twice does no harm."""
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def __enter__(self) -> "NanHooks":
        return self

    def __exit__(self, *_) -> None:
        self.remove()

    def bad(self, tensor: Tensor) -> bool:
        """NaN, or Inf where that counts."""
        if self.inf:
            return not finite(tensor)
        return tensor.is_floating_point() and bool(tensor.detach().isnan().any())

    def alarm(self, where: str, tensor: Tensor, stats: list[str]) -> None:
        """Print, and raise."""
        kind = "NaN" if tensor.isnan().any() else "Inf"
        lines = [f"❌ {kind} detected in {where}: {check_tensor(tensor)}", *stats]
        self.found.append(lines[0])
        print("\n".join(lines))
        raise RuntimeError(f"{kind} in {where}")

    def _gradient(self, where: str):
        def hook(grad: Tensor) -> None:
            if self.handles and self.bad(grad):  # a graph may outlive the hooks
                self.alarm(where, grad, [])

        return hook


class _OfModule:
    """What is done around one module."""

    def __init__(self, hooks: NanHooks, name: str, module: nn.Module):
        self.hooks, self.name = hooks, name
        self.kind = type(module).__name__

    def before(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Bad inputs were made outside the modules, or every module before would have raised."""
        for path, tensor in _given(args, kwargs):
            if self.hooks.bad(tensor):
                where = f"the input {path} of {self.name} ({self.kind}); no module made it"
                self.hooks.alarm(where, tensor, [])

    def after(self, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        for path, tensor in leaves(output):
            if self.hooks.bad(tensor):
                self.hooks.alarm(
                    f"{self.name} ({self.kind}), output{path}", tensor, _stats(module, args, kwargs)
                )
            if self.hooks.backward and tensor.requires_grad and torch.is_grad_enabled():
                where = f"the gradient that arrives at {self.name} ({self.kind}), output{path}"
                tensor.register_hook(self.hooks._gradient(where))


def _given(args: tuple, kwargs: dict) -> list[tuple[str, Tensor]]:
    return [*leaves(args), *leaves(kwargs)]


def _stats(module: nn.Module, args: tuple, kwargs: dict) -> list[str]:
    lines = [f"   Input {path} stats: {check_tensor(t)}" for path, t in _given(args, kwargs)]
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return lines + [f"   Parameter {name}: {check_tensor(p)}" for name, p in own if not finite(p)]


def register_nan_hooks(model: nn.Module, inf: bool = True, backward: bool = True) -> NanHooks:
    """Raise at the first module whose inputs, outputs or gradients are not finite.

    A NaN that is made between the modules is caught where it enters the next one; one made behind
    the last module (in a loss) where its gradient comes back, or by ``hooks.check("loss", loss)``.

    Args:
        model: hooks that this function registered on it before are taken off first.
        inf: infinities count too. Switch it off for a model whose outputs hold masks of -Inf.
        backward: also look at the gradients of outputs and parameters.

    Returns:
        The hooks: ``remove()`` them, or use a ``with`` block. ``found`` lists the alarms.

    Raises:
        RuntimeError: from the forward or backward pass, with kind and qualified name.

    Breaks when: an output hides its tensors in an object that is no tuple, list, dict or
        dataclass; the model was compiled before.

    The guide's original is blind where (each shown in a test):
        Tuples, dicts and Inf pass, so the lab's own encoder and decoder and every LSTM do.
        What is made outside a module and the whole backward pass are not seen.
        A call with keywords only ends in an IndexError.
        The handles are lost: hooks cannot be removed, and add up. Two layers of a kind have
            the same name.

    Source: the guide, 4.3.
    """
    if model in _ACTIVE:
        _ACTIVE[model].remove()
    hooks = _ACTIVE[model] = NanHooks(model, inf, backward)
    return hooks
