"""Some steps of training, looked at one by one, and everything put back afterwards."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from labkit.checklist.flow import few
from labkit.guide.leaves import finite, leaves, reals

HUGE = 1e6  # of a gradient's norm, in units of the loss (of 1 where the loss is smaller)
JUMP = 1e3  # of a norm over the median of the others, or under it


def bad_state(model: nn.Module, optimizer) -> list[str]:
    """Names of parameters, buffers and optimizer entries that are not finite."""
    names = {id(p): name for name, p in model.named_parameters()}
    own = [*model.named_parameters(), *model.named_buffers()]
    state = [
        (f"{key} of {names.get(id(p), 'a tensor')}{path}", t)
        for p, entries in optimizer.state.items()
        for key, value in entries.items()
        for path, t in leaves(value)
    ]
    return [name for name, t in own + state if not finite(t)]


class Course:
    """What happened in the steps."""

    def __init__(self, step: Callable[[Any], Tensor], model: nn.Module, optimizer):
        self.step, self.model, self.optimizer = step, model, optimizer
        self.faults: dict[str, str] = {}
        self.norms: list[float] = []
        self.alive: set[str] = set()
        self.reached: set[str] = set()
        self.done = 0

    def run(self, batches: Sequence[Any]) -> None:
        """Train on the batches; a step whose loss or gradient is bad is not taken."""
        for number, batch in enumerate(batches):
            self._one(number, batch)
            self.done = number + 1
            bad = bad_state(self.model, self.optimizer)
            if bad:
                key = "final state" if number + 1 == len(batches) else "state"
                self.faults[key] = f"after step {number}: {few(bad)}"
                return
        self._norms()

    def _one(self, number: int, batch: Any) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        try:
            loss = self.step(batch)
        except FloatingPointError as error:  # a guard that refuses
            self.faults.setdefault("loss", f"batch {number} is refused: {error}")
            return
        if not finite(loss):
            self.faults.setdefault("loss", f"batch {number}: {loss.item()}")
            return
        if not loss.requires_grad:
            return
        _backward(loss)
        grads = {n: p.grad for n, p in self.model.named_parameters() if p.grad is not None}
        self.reached |= grads.keys()
        bad = [name for name, g in grads.items() if not finite(g)]
        if bad:
            self.faults.setdefault("gradient norm", f"batch {number}: {few(bad)} not finite")
            return
        self.alive |= {name for name, g in grads.items() if measure_any(g)}
        norm = float(torch.stack([reals(g).norm() for g in grads.values()]).norm())
        self.norms.append(norm)
        if norm > HUGE * max(1.0, abs(float(loss.detach()))):
            self.faults.setdefault("gradient norm", f"batch {number}: {norm:.3g}")
        self.optimizer.step()

    def _norms(self) -> None:
        """One batch out of line with the others."""
        if len(self.norms) < 3 or "gradient norm" in self.faults:
            return
        middle = median(self.norms)
        for number, norm in enumerate(self.norms):
            if not middle / JUMP <= norm <= middle * JUMP:
                words = f"step {number}: {norm:.3g}, the median is {middle:.3g}"
                self.faults["gradient norm"] = words

    def validate(self, batches: Sequence[Any]) -> str:
        """The first validation loss in eval() that is not finite, in words, or ""."""
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            for number, batch in enumerate(batches):
                loss = self.step(batch)  # with a graph: some losses take gradients of their own
                if not finite(loss):
                    return f"batch {number}: {loss.item()}"
        except FloatingPointError as error:
            return f"batch {number} is refused: {error}"
        finally:
            for module, training in modes:
                module.training = training
        return ""


def _backward(loss: Tensor) -> None:
    try:
        loss.backward()
    except RuntimeError as error:
        if "second time" not in str(error):
            raise
        raise ValueError(
            "step: expected the loss before its backward; leave backward and the optimizer's "
            "step to the checklist"
        ) from error


def measure_any(grad: Tensor) -> bool:
    """Is any entry not zero?"""
    return bool((grad.coalesce().values() if grad.is_sparse else grad).count_nonzero())


class Kept:
    """Parameters, buffers, gradients and optimizer, put back to the bit."""

    def __init__(self, model: nn.Module, optimizer):
        self.optimizer = optimizer
        params = [*model.parameters(), *(p for g in optimizer.param_groups for p in g["params"])]
        self.tensors = [(t, t.detach().clone()) for t in (*params, *model.buffers())]
        self.grads = [(p, p.grad, None if p.grad is None else p.grad.clone()) for p in params]
        self.state = {p: deepcopy(dict(s)) for p, s in optimizer.state.items()}
        self.groups = [
            deepcopy({k: v for k, v in g.items() if k != "params"}) for g in optimizer.param_groups
        ]

    def put_back(self) -> None:
        """Everything as it was when this object was made."""
        with torch.no_grad():
            for tensor, old in self.tensors:
                tensor.copy_(old)
        for p, grad, old in self.grads:
            p.grad = None if grad is None else grad.copy_(old)
        self.optimizer.state.clear()
        self.optimizer.state.update(self.state)
        for group, old in zip(self.optimizer.param_groups, self.groups, strict=True):
            group.update(old)
