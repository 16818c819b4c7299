"""Seven ways to look for the source of a bad number, and what each of them names.

The guide's own ways are written anew from its words. Each detector gets a training step and its
model, and tells whether it raised an alarm, and which line it named (0: none).
"""

import contextlib
import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from labkit.failures import _hunted
from labkit.failures._hunted import Make
from labkit.guide import register_nan_hooks
from labkit.guide.births import first_birth
from labkit.probes.trace import trace

Alarm = tuple[bool, int]
TINY = 1e-8  # the guide's bound for a gradient that is "near zero"


def loss_is_nan(step: Callable[[], Tensor], model: nn.Module) -> Alarm:
    """The guide's first check: is the loss NaN?"""
    return bool(step().isnan()), 0


def gradient_check(step: Callable[[], Tensor], model: nn.Module) -> Alarm:
    """The guide's tool 1, after backward: no gradient, NaN in it, or nearly zero."""
    step().backward()
    grads = [p.grad for p in model.parameters()]
    return any(g is None or bool(g.isnan().any()) or g.abs().max() < TINY for g in grads), 0


def plain_hooks(step: Callable[[], Tensor], model: nn.Module) -> Alarm:
    """The guide's technique 3: a module whose output is a tensor with NaN in it."""
    found: list[bool] = []

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            found.append(bool(output.isnan().any()))

    handles = [module.register_forward_hook(look) for module in model.modules()]
    step().backward()
    for handle in handles:
        handle.remove()
    return any(found), 0


def full_hooks(step: Callable[[], Tensor], model: nn.Module) -> Alarm:
    """`labkit.guide.register_nan_hooks`: tuples, infinities and gradients as well."""
    with register_nan_hooks(model) as hooks, contextlib.redirect_stdout(io.StringIO()):
        try:
            loss = step()
            hooks.check("loss", loss)
            loss.backward()
        except RuntimeError:
            return True, 0
    return False, 0


def anomaly(step: Callable[[], Tensor], model: nn.Module) -> Alarm:
    """`torch.autograd.detect_anomaly`: a backward function that returns NaN."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            with torch.autograd.detect_anomaly():
                step().backward()
        except RuntimeError:
            told = "".join(str(warning.message) for warning in heard)
            lines = re.findall(rf'{re.escape(_hunted.__file__)}", line (\d+)', told)
            return True, int(lines[-1]) if lines else 0
    return False, 0


def bisection(step: Callable[[], Tensor], model: nn.Module) -> Alarm:
    """Halve the operators: the first that makes a bad number out of good ones."""
    birth = first_birth(lambda: step().backward())
    return birth is not None, birth.line if birth else 0


def tracer(step: Callable[[], Tensor], model: nn.Module) -> Alarm:
    """`labkit.trace`."""
    report = trace(step, model=model)
    return report.culprit is not None, report.culprit.line if report.culprit else 0


DETECTORS: dict[str, Callable[..., Alarm]] = {
    "loss NaN": loss_is_nan,
    "gradients": gradient_check,
    "hooks": plain_hooks,
    "full hooks": full_hooks,
    "anomaly": anomaly,
    "bisection": bisection,
    "trace": tracer,
}


def judged(alarm: Alarm, make: Make, broken: bool) -> str:
    """``line``, ``alarm``, ``wrong line``, ``false alarm`` or nothing, beside the truth."""
    raised, line = alarm
    if not raised:
        return "-"
    if not broken:
        return "false alarm"
    return "alarm" if not line else "line" if line == true_line(make) else "wrong line"


def true_line(make: Make) -> int:
    """The line of the fault, marked in the program's file."""
    with open(_hunted.__file__, encoding="utf-8") as file:
        marked = [i for i, text in enumerate(file, 1) if text.rstrip().endswith("# fault")]
    where = _hunted.INSIDE.get(make, make)
    return next(line for line in marked if line > where.__code__.co_firstlineno)


def line_up() -> dict[str, dict[str, str]]:
    """Every fault before every detector; the first row is a healthy program."""
    return {
        name: {
            detector: judged(look(*make(True)), make, name != "none")
            for detector, look in DETECTORS.items()
        }
        for name, make in _hunted.ALL.items()
    }
