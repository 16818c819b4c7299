"""The gate before every optimizer step: gradients are checked, and a bad step does nothing."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from labkit.watch.check import all_finite, bad_names, listed
from labkit.watch.holdings import Holdings, owned


@dataclass(frozen=True, slots=True)
class Evidence:
    """The bits by which two runs of one step are compared."""

    loss: str = ""
    tensors: tuple[tuple[str, str], ...] = ()

    def differs(self, other: "Evidence") -> list[str]:
        """Names of what has other bits there, or is missing on one side."""
        loss = ["loss"] if self.loss != other.loss else []
        return loss + sorted({name for name, _ in set(self.tensors) ^ set(other.tensors)})


def bits(tensor: Tensor) -> str:
    """A short hash of a tensor's content; every NaN counts as the same NaN."""
    values = tensor.detach().cpu()
    values = values.to_dense() if values.layout is not torch.strided else values
    values = torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
    values = torch.where(values.isnan(), torch.nan, values).contiguous()
    content = values.flatten().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


class Gate:
    """Hooks before and after the steps of some optimizers.

    A step is refused by taking its gradients away while it runs: an optimizer leaves parameters
    without a gradient alone. Afterwards they hang on the parameters as before.
    """

    def __init__(self, holdings: Holdings, stranger: Callable[[Any, str], None]):
        self.holdings = holdings
        self._stranger = stranger  # told about a bad step outside of every watched batch
        self._aside: list[tuple[Tensor, Tensor]] = []
        self._handles = [
            handle
            for optimizer in holdings.optimizers
            for handle in (
                optimizer.register_step_pre_hook(self._before),
                optimizer.register_step_post_hook(self._after),
            )
        ]
        self._met: set[int] = set()  # optimizers that have stepped
        self.begin(refuse=True)
        self.running = False

    def begin(self, refuse: bool) -> None:
        """A run of a batch begins.

        Args:
            refuse: hold bad steps back; else let them pass, and only note them.
        """
        self.running, self.refuse = True, refuse
        self.loss: Tensor | None = None
        self._loss_seen = False  # with the gradients
        self.trouble = ""  # what was found first, in words
        self.passed = 0  # optimizer steps that were let through
        self._hashed: tuple[tuple[str, str], ...] = ()

    def end(self) -> None:
        """The run is over; gradients that an error left aside hang on their parameters again."""
        self.running = False
        self._put_back()

    def see(self, loss: Any) -> None:
        """Note the loss of this run: a tensor or a number; anything else is ignored."""
        if isinstance(loss, float):
            loss = torch.tensor(loss, dtype=torch.float64)
        if isinstance(loss, Tensor) and (loss.is_floating_point() or loss.is_complex()):
            self.loss = loss.detach()

    def judge_loss(self) -> None:
        """At the end of a run: a loss that is not finite is trouble, whatever the gradients."""
        if self.trouble or self.loss is None or self._loss_seen:
            return
        if not all_finite([self.loss]):
            self.trouble = f"not finite: {bad_names({'loss': self.loss})[0]}"

    @property
    def evidence(self) -> Evidence:
        """Of this run: the bad gradients (where none was bad the parameters), buffers, noise.

        A gradient that is NaN everywhere tells little; the buffers and the state of the random
        numbers behind the run then tell more.
        """
        holdings = self.holdings
        left = {**holdings.buffers(), "random numbers": torch.get_rng_state()}
        left = left if self._hashed else {**holdings.parameters, **left}
        state = (*self._hashed, *((name, bits(tensor)) for name, tensor in left.items()))
        return Evidence(bits(self.loss) if self.loss is not None else "", state)

    def close(self) -> None:
        """Take the hooks away."""
        self._put_back()
        for handle in self._handles:
            handle.remove()

    def _before(self, optimizer: Any, args: tuple, kwargs: dict) -> None:
        if any(callable(argument) for argument in (*args[1:], *kwargs.values())):
            raise TypeError(
                "watch: expected optimizer.step() after backward; got a closure, which computes "
                "the gradients inside of the step, behind the check. LBFGS cannot be watched."
            )
        if id(optimizer) not in self._met:
            self._met.add(id(optimizer))
            _ask_for_scaler(self.holdings.kept)
        if not torch._C._len_torch_dispatch_stack():
            self._judge(optimizer)
            return
        with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction(), torch.no_grad():
            self._judge(optimizer)  # unseen by the tracer

    def _judge(self, optimizer: Any) -> None:
        scaled = getattr(optimizer, "found_inf", None)  # a fused step under a GradScaler
        if scaled is not None and scaled.item():
            return
        if not self.running:
            self.loss, self.trouble = None, ""
        leaves = [leaf for leaf in owned(optimizer) if leaf.grad is not None]
        seen = [leaf.grad for leaf in leaves]
        self._loss_seen = self.loss is not None
        good = not self.trouble and all_finite(seen if self.loss is None else [*seen, self.loss])
        if good or not self.refuse:
            self.passed += 1
        if good:
            return
        self._note(leaves)
        if not self.running:
            self._stranger(optimizer, self.trouble)
        if self.refuse:
            self._aside += [(leaf, leaf.grad) for leaf in leaves]
            for leaf in leaves:
                leaf.grad = None

    def _note(self, leaves: list[Tensor]) -> None:
        if self.trouble:
            return
        names = self.holdings.names
        found = {f"gradient of {names.get(id(leaf), '?')}": leaf.grad for leaf in leaves}
        self._hashed = tuple((name, bits(gradient)) for name, gradient in found.items())
        loss = {} if self.loss is None else {"loss": self.loss}
        self.trouble = "not finite: " + listed(bad_names(loss | found))

    def _after(self, optimizer: Any, args: tuple, kwargs: dict) -> None:
        self._put_back()

    def _put_back(self) -> None:
        for leaf, gradient in self._aside:
            leaf.grad = gradient
        self._aside.clear()


def _ask_for_scaler(kept: Sequence[Any]) -> None:
    """A GradScaler that steps an optimizer must be known: a replay would change its scale."""
    frame = sys._getframe(2)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, torch.amp.GradScaler) and not any(caller is thing for thing in kept):
            raise ValueError(
                "scaler: expected the GradScaler of this training; got None, and a GradScaler "
                "steps this optimizer. Use watch(..., scaler=scaler)."
            )
        frame = frame.f_back
