"""The detectors that one would use instead, written from their descriptions."""

import contextlib
import re
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.probes.corpus.case import Case, Program
from tests.probes.corpus.run import Score, plain


@dataclass
class Alarm:
    """What a detector said."""

    flagged: bool = False
    op: str = ""
    line: int = 0
    parameters: set[str] = field(default_factory=set)


def drive(program: Program, after_step: Callable[[], None] = lambda: None) -> None:
    """Run the steps; a loss that is only returned gets its backward here."""
    for _ in range(program.steps):
        loss = program.step()
        if isinstance(loss, torch.Tensor) and loss.requires_grad:
            try:
                loss.backward()
            except RuntimeError as error:
                if "second time" not in str(error):
                    raise
        after_step()


def file_of(case: Case) -> str:
    return case.make.__code__.co_filename


def anomaly(case: Case, broken: bool) -> Alarm:
    """torch.autograd.detect_anomaly: NaN in backward, with the forward traceback."""
    alarm = Alarm()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            with torch.autograd.detect_anomaly():
                drive(case.make(broken))
        except RuntimeError as error:
            found = re.search(r"Function '(\w+)' returned nan", str(error))
            alarm.flagged = found is not None
            alarm.op = found[1] if found else ""
    for warning in heard:
        lines = re.findall(rf'File "{re.escape(file_of(case))}", line (\d+)', str(warning.message))
        if lines and alarm.flagged:
            alarm.line = int(lines[-1])
    return alarm


class _Raised(Exception):
    pass


def overflow_hooks(case: Case, broken: bool) -> Alarm:
    """Hugging Face's DebugUnderflowOverflow: hooks that look at weights, inputs and outputs."""
    program, alarm = case.make(broken), Alarm()

    def look(module, inputs, outputs):
        tensors = [*module.parameters(recurse=False), *_tensors(inputs), *_tensors(outputs)]
        if any(not torch.isfinite(t).all() for t in tensors if t.is_floating_point()):
            alarm.flagged, alarm.op = True, type(module).__name__
            raise _Raised

    return _hooked(program, look, alarm)


def nan_hooks(program: Program, alarm: Alarm) -> Alarm:
    """The guide's register_nan_hooks: a NaN in a tensor that a module returns."""

    def look(module, inputs, output):
        if isinstance(output, torch.Tensor) and torch.isnan(output).any():
            alarm.flagged, alarm.op = True, type(module).__name__
            raise _Raised

    return _hooked(program, look, alarm)


def _hooked(program: Program, look, alarm: Alarm) -> Alarm:
    model = program.model if isinstance(program.model, torch.nn.Module) else torch.nn.Module()
    handles = [module.register_forward_hook(look) for module in model.modules()]
    try:
        drive(program)
    except (_Raised, RuntimeError):
        pass
    finally:
        for handle in handles:
            handle.remove()
    return alarm


def _tensors(thing):
    leaves = torch.utils._pytree.tree_leaves(thing)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


class _Plain(TorchDispatchMode):
    """Flags the first operator whose output is not finite, whatever becomes of it."""

    def __init__(self, file: str, alarm: Alarm):
        super().__init__()
        self.file, self.alarm = file, alarm

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not self.alarm.flagged:
            bad = [t for t in _tensors(out) if t.is_floating_point() and t.numel()]
            if any(not torch.isfinite(t).all() for t in bad):
                self.alarm.flagged, self.alarm.op = True, func._schema.name.split("::")[1]
                frames = [f for f in traceback.extract_stack() if f.filename == self.file]
                self.alarm.line = frames[-1].lineno if frames else 0
        return out


def dispatch(case: Case, broken: bool) -> Alarm:
    """A plain dispatch mode."""
    alarm = Alarm()
    program = case.make(broken)
    with _Plain(file_of(case), alarm), contextlib.suppress(RuntimeError):
        drive(program)
    return alarm


def guides_tools(case: Case, broken: bool) -> Alarm:
    """The guide's check_gradient_flow after each step, its NaN hooks, its NaN test of the loss."""
    program, alarm = case.make(broken), Alarm()
    model = program.model if isinstance(program.model, torch.nn.Module) else torch.nn.Module()
    found: set[str] | None = None

    def check():
        nonlocal found
        sick = {name for name, p in model.named_parameters() if _sick(p)}
        found = sick if found is None else found | sick

    try:
        drive(program, check)
    except RuntimeError:
        alarm.flagged = True
    alarm.parameters = found or set()
    alarm.flagged |= bool(found)
    return alarm if alarm.flagged else nan_hooks(case.make(broken), alarm)


def _sick(p: torch.Tensor) -> bool:
    if p.grad is None:
        return p.requires_grad
    return bool(torch.isnan(p.grad).any()) or bool(p.grad.abs().max() < 1e-8)


RIVALS: dict[str, Callable[[Case, bool], Alarm]] = {
    "detect_anomaly": anomaly,
    "DebugUnderflowOverflow": overflow_hooks,
    "plain dispatch mode": dispatch,
    "the guide's tools": guides_tools,
}


def ask(name: str, case: Case, broken: bool) -> Alarm:
    """One detector on one form of a program."""
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return RIVALS[name](case, broken)


def judge(case: Case, alarm: Alarm) -> Score:
    wanted = {plain(op) for op in case.op}
    return Score(
        flagged=alarm.flagged,
        op=alarm.flagged and plain(alarm.op) in wanted,
        line=alarm.flagged and alarm.line in case.lines,
        parameters=alarm.flagged and (case.harmed is None or alarm.parameters == case.harmed),
    )
