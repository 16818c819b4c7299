"""The guide's four checklists as checks that run before, during and after some steps."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch
from torch import Generator, Tensor, nn

from labkit.checklist.course import Course, Kept, bad_state
from labkit.checklist.flow import cut, few, members, slope_fault
from labkit.checklist.items import BOXES, Checklist, Item, judged
from labkit.checklist.stability import audit, weights
from labkit.guide.leaves import finite, leaves
from labkit.guide.same_noise import SameNoise
from labkit.probes.report import Report
from labkit.probes.trace import trace

__all__ = ["BOXES", "Checklist", "Item", "checklist"]


def checklist(
    step: Callable[[Any], Tensor],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Iterable[Any],
    valid: Iterable[Any] = (),
    steps: int = 5,
    data: Callable[[Any], Any] | None = None,
    slope: float | None = 0.1,
    generators: Iterable[Generator] = (),
) -> Checklist:
    """Tick the guide's boxes: on the data, on a traced first step, on some steps, on eval().

    Training is tried for real and then taken back: parameters, buffers, gradients, optimizer and
    random numbers end with the bits that they had.

    Args:
        step: ``step(batch)`` returns the loss, a scalar with its graph. It neither runs backward
            nor the optimizer.
        model: what is trained.
        optimizer: what trains it.
        train: batches; the first `steps` of them are used.
        valid: batches, each of which is scored once in eval().
        steps: how many steps to take.
        data: called with every batch; a ValueError from it says what is wrong (for counts:
            `validate_counts`). That all floats are finite is checked in any case.
        slope: a finite difference of the first loss may differ from its gradient by this share.
            None for a model with a stop-gradient or a straight-through estimator on purpose.
        generators: that the step draws from, besides the global ones.

    Returns:
        One item a box: ok, fault with its remedy, follows (another fault explains it) or not run.

    Raises:
        ValueError: `train` is empty, or `step` returns no scalar.

    Breaks when:
        A unit that is dead in the first batches lives in later ones: raise `steps`.
        The optimizer needs a closure.

    Source: the guide's checklists in 1.2 and 5.
    """
    generators = list(generators)
    kept = Kept(model, optimizer)
    with SameNoise(model, generators):
        batches, validation = list(islice(train, steps)), list(valid)
        if not batches:
            raise ValueError("train: expected at least one batch; got none")
        try:
            return _Check(step, model, optimizer, data, slope, generators).all(batches, validation)
        finally:
            kept.put_back()


class _Check:
    def __init__(self, step, model: nn.Module, optimizer, data, slope, generators):
        self.step, self.model, self.optimizer = step, model, optimizer
        self.data, self.slope, self.generators = data, slope, generators
        self.faults: dict[str, str] = {}
        self.fine: dict[str, str] = {}

    def all(self, batches: list, validation: list) -> Checklist:
        """Before, during, after."""
        self.note("data", self.bad_data([*batches, *validation]), "all finite")
        for key, fault in members(self.model, self.optimizer).items():
            self.note(key, fault, "all of them")
        self.note("initial weights", weights(self.model), "all in scale")
        self.first(batches[0])
        course = Course(self.step, self.model, self.optimizer)
        course.run(batches)
        self.along(course, len(batches))
        fault = course.validate(validation)
        self.note("validation", fault, f"{len(validation)} batches")
        return judged(self.faults, self.fine)

    def note(self, key: str, fault: str, seen: str) -> None:
        """Keep what was found; the first fault of a box counts."""
        if fault:
            self.faults.setdefault(key, fault)
        else:
            self.fine[key] = seen

    def bad_data(self, batches: list) -> str:
        for number, batch in enumerate(batches):
            found = list(leaves(batch))
            bad = [path or "it" for path, t in found if not finite(t)]
            if bad:
                return f"batch {number}: {few(bad)} not finite"
            if any(not t.numel() for _, t in found):
                return f"batch {number} is empty"
            try:
                _ = self.data(batch) if self.data else None
            except ValueError as error:
                return f"batch {number}: {error}"
        return ""

    def first(self, batch: Any) -> None:
        """One traced step, and the same step again for its gradient."""
        noise = SameNoise(self.model, self.generators)

        def again() -> Tensor:
            noise.again()
            return self.step(batch)

        loss, report = self.traced(again, batch)
        for key, (fault, seen) in audit(report).items():
            self.note(key, fault, seen)
        key, where = cut(report, loss is None or loss.requires_grad)
        for box in ("no_grad", "detach", "values"):
            self.note(box, where if box == key else "", "none found")
        self.note("first step", self.unhealthy(loss, report), str(report).partition(":")[0])
        if loss is not None and loss.requires_grad and finite(loss):
            self.path_fault = slope_fault(again, self.model, self.slope)
        else:
            self.path_fault = ""
        noise.again()

    def traced(self, again: Callable[[], Tensor], batch: Any) -> tuple[Tensor | None, Report]:
        seen: list[Tensor] = []

        def watched() -> Tensor:
            seen.append(_scalar(again()))
            return seen[-1]

        try:
            return (lambda report: (seen[-1], report))(trace(watched, self.model))
        except FloatingPointError as error:
            self.faults["first step"] = f"refused: {error}"
            return None, error.report

    def unhealthy(self, loss: Tensor | None, report: Report) -> str:
        """Non-finite at the start; what another box knows better follows from it."""
        bad = bad_state(self.model, self.optimizer)
        if bad:
            return f"not finite before any step: {few(bad)}"
        sick = [fate.name for fate in report.parameters if fate.word in ("nan", "inf")]
        if report.verdict in ("nan", "inf") or sick:
            return str(report)
        return ""

    def along(self, course: Course, planned: int) -> None:
        """What the steps showed."""
        stopped = "state" in course.faults
        for key in ("loss", "gradient norm", "state"):
            self.note(key, course.faults.get(key, ""), f"{course.done} steps")
        if not stopped:
            self.note("final state", course.faults.get("final state", ""), f"{planned} steps")
        named = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        missed = [name for name in named if name not in course.reached]
        dead = [name for name in named if name not in course.alive and name in course.reached]
        fault = f"no path to {few(missed)}" if missed else ""
        fault = fault or (f"the gradient of {few(dead)} is 0 in every step" if dead else "")
        self.note("path", fault or self.path_fault, f"{len(course.alive)} parameters")


def _scalar(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise ValueError(f"step: expected a function that returns the loss, a scalar; got {loss!r}")
    return loss
