"""`trace`: run training steps under full instruments and tell what happened."""

import difflib
import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch

from labkit.probes.raised import explained
from labkit.probes.report import Report
from labkit.probes.returned import bad_numbers, loss_of, shape_of
from labkit.probes.session import Tracing
from labkit.probes.verdict import Verdict


def trace(
    step: Callable[[], Any] | None = None,
    model=None,
    optimizers=(),
    steps: int = 1,
    shadow: bool | float = False,
    **unknown,
) -> Report | Tracing:
    """Trace training steps, or (without `step`) a ``with`` block.

    The rule for `step`: it may run a whole training step itself and return what it likes, or
    only compute the loss and return it: alone, in a tuple or in a dict (see `loss_of`). If it
    ran no backward, the tracer runs ``loss.backward()``; then, if `optimizers` are given and
    none of them stepped, it also runs ``zero_grad`` before and ``step`` after. Without
    optimizers the gradients that the tracer's own backward made are taken away again and every
    ``.grad`` is as it was before.

    Args:
        step: called `steps` times without arguments.
        model: a module, or several in a list or dict. Without it every module that runs is
            found by itself, and every trainable leaf that the program uses is reported.
        optimizers: one optimizer or several; those that step by themselves are seen anyway.
        steps: how many training steps to run, at least 1.
        shadow: carry float64 beside the working dtype, forward only, and name the first op
            whose relative error exceeds a bound (1 %, or the number given) on its way to a
            loss that is off by as much. Doubles the work.
        **unknown: none is known; a misspelt argument is told the right name.

    Returns:
        A `Report`; without `step` a context manager, whose ``report`` is there after the block.

    Raises:
        TypeError, ValueError: an argument of the wrong kind.
        RuntimeError: a trace already runs in this thread.
        Whatever `step` raises: it passes through, with the report as ``error.report``. Two
            errors of autograd are findings instead, and the report names the line: a loss
            without a graph, and saved data that was overwritten in place.
    """
    if unknown:
        raise TypeError(_misspelt(next(iter(unknown))))
    if step is None:
        return Tracing(model, optimizers, shadow=shadow)
    _check(step)
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: expected a whole number of at least 1; got {steps!r}")
    tracing = Tracing(model, optimizers, last_frame=id(sys._getframe()), shadow=shadow)
    try:
        with tracing:
            for number in range(steps):
                _one(tracing, step)
                if number + 1 < steps:
                    tracing.step()
    except RuntimeError as error:
        if not explained(error) or tracing.report.verdict is Verdict.HEALTHY:
            raise
    return tracing.report


def _misspelt(name: str) -> str:
    known = list(inspect.signature(trace).parameters)[:-1]
    meant = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {meant[0]}?" if meant else ""
    return f"trace: expected the arguments {', '.join(known)}; got {name}{hint}"


_BLOCK = "trace(lambda: loss_of(model(batch)), model), or a block: with trace(model=model)"


def _check(step) -> None:
    """A step that needs arguments is told so before it runs."""
    kind = type(step).__name__
    if not callable(step):
        raise TypeError(f"step: expected a function without arguments; got {kind}")
    module = isinstance(step, torch.nn.Module)
    try:
        signature = inspect.signature(step.forward if module else step)
    except (TypeError, ValueError):  # written in C: it must be tried
        return
    needed = [p for p in signature.parameters.values() if p.default is p.empty]
    needed = [p.name for p in needed if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not needed:
        return
    what = f"the module {kind}, whose forward" if module else f"{_called(step)}, which"
    call = _BLOCK if module else "trace(lambda: step(batch))"
    raise TypeError(
        "step: expected a function without arguments that runs one training step or returns its "
        f"loss; got {what} needs {', '.join(needed)}. Wrap it with its data: {call}"
    )


def _called(step) -> str:
    return f"the function {step.__name__}" if hasattr(step, "__name__") else type(step).__name__


def _one(tracing: Tracing, step: Callable[[], Any]) -> None:
    calls, training = tracing.calls, tracing.training
    given = list(training.optimizers.values()) if tracing.given else []
    before = calls.backwards, len(training.stepped)
    value = step()
    tracing.driven |= before != (calls.backwards, len(training.stepped))
    loss = None if tracing.driven else loss_of(value, tracing.tape)
    if loss is None:
        tracing.returned = shape_of(value)
        return
    _look_at_the_rest(tracing, value, loss)
    if not loss.requires_grad:
        calls.returned(loss)
        return
    kept = tracing.set_aside()
    loss.backward()
    if given and loss.isfinite().all():
        for optimizer in given:
            optimizer.step()
            optimizer.zero_grad()
    else:
        tracing.put_back(kept)


def _look_at_the_rest(tracing: Tracing, value: Any, loss: torch.Tensor) -> None:
    """A number with a graph that is returned beside the loss: not finite, it does harm too."""
    for number in bad_numbers(value, tracing.tape):
        if number is not loss:
            tracing.calls.returned(number)
