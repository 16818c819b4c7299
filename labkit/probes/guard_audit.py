"""What do the guards of a run really do? Counted, not assumed."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class GuardReport:
    """What one guard did in one run.

    ``killed`` counts elements whose gradient is not zero behind the guard and zero in front of
    it: these can no longer be moved by what comes after the guard.
    """

    guard: str
    calls: int
    elements: int
    altered: int  # elements whose value it changed
    largest_change: float  # of one element
    killed: int
    loss_with: float  # with all guards
    loss_without: float  # without this one

    @property
    def loss_change(self) -> float:
        return self.loss_with - self.loss_without

    def __str__(self) -> str:
        if not self.calls:
            return f"{self.guard}: not reached"
        share = self.altered / self.elements if self.elements else 0.0
        return (
            f"{self.guard}: altered {share:.1%} of {self.elements} elements "
            f"(by up to {self.largest_change:.3g}), killed the gradient of {self.killed}, "
            f"changed the loss by {self.loss_change:.3g}"
        )


@dataclass(eq=False)
class _Recorder:
    guard: Callable[[Tensor], Tensor]
    pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __call__(self, value: Tensor) -> Tensor:
        before = value.view_as(value)  # a node of its own: all its gradient comes by this guard
        after = self.guard(before)
        after = after.view_as(after)
        if before.requires_grad and not after.requires_grad:
            after.requires_grad_()  # the guard cut the graph; what arrives behind it still counts
        self.pairs.append((before, after))
        return after

    def changes(self) -> list[Tensor]:
        """Size of the change of every element; 0 where NaN stayed NaN or Inf stayed Inf."""
        sizes = []
        for before, after in self.pairs:
            before, after = before.detach().double(), after.detach().double()
            same = (before == after) | (before.isnan() & after.isnan())
            sizes.append((after - before).abs().masked_fill(same, 0.0).nan_to_num(torch.inf))
        return sizes

    def killed(self, loss: Tensor) -> int:
        count = 0
        for pair in self.pairs:
            if pair[0].requires_grad and loss.requires_grad:
                grads = torch.autograd.grad(
                    loss, pair, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                count += int(((grads[1] != 0) & (grads[0] == 0)).sum())
        return count


def audit_guards(guards: Any, loss_of: Callable[[Any], Tensor]) -> tuple[GuardReport, ...]:
    """Run once under observation, and once more without each guard.

    Args:
        guards: a dataclass whose fields are functions from tensor to tensor of the same shape.
        loss_of: computes the scalar loss under such guards. It must draw the same random numbers
            in every call, so make its generator inside. No ``.grad`` is written.

    Returns:
        One report per field, in order.
    """
    if not is_dataclass(guards):
        raise TypeError(f"guards: expected a dataclass of functions, got {type(guards).__name__}")
    names = [each.name for each in fields(guards)]
    recorders = {name: _Recorder(getattr(guards, name)) for name in names}
    loss = loss_of(replace(guards, **recorders))
    return tuple(_report(name, recorders[name], loss, guards, loss_of) for name in names)


def _report(name: str, recorder: _Recorder, loss: Tensor, guards: Any, loss_of) -> GuardReport:
    changes = recorder.changes()
    without = loss_of(replace(guards, **{name: lambda value: value}))
    return GuardReport(
        guard=name,
        calls=len(changes),
        elements=sum(change.numel() for change in changes),
        altered=sum(int((change != 0).sum()) for change in changes),
        largest_change=max((float(c.max()) for c in changes if c.numel()), default=0.0),
        killed=recorder.killed(loss),
        loss_with=float(loss.detach()),
        loss_without=float(without.detach()),
    )
