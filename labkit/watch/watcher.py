"""A `Watch`: silent until a number blows up."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import nn

from labkit.probes.harm import SKIPS as PATIENCE
from labkit.watch import arguments, newest, takeover
from labkit.watch.capsule import save
from labkit.watch.choice import Choice
from labkit.watch.course import Course
from labkit.watch.entry import Entry, copied
from labkit.watch.gate import Gate
from labkit.watch.holdings import Holdings
from labkit.watch.inquiry import Finding, graphs, inquire, remarks
from labkit.watch.program import whence
from labkit.watch.randomness import Randomness, is_generator
from labkit.watch.trigger import Blowup, Trigger


class Watch:
    """Checks every step of a training and explains the first that goes wrong; see `watch`."""

    def __init__(
        self, models, optimizers, step, scaler, keep, on_trigger, limit, every, ring, safe, folder
    ):
        named = arguments.models(models)
        self.models: list[nn.Module] = list(named.values())
        self._compiled, self._graphs = arguments.compiled(models, step), graphs()
        optimizers = arguments.optimizers(optimizers, self.models)
        kept = arguments.kept(keep, scaler)
        generators = [thing for thing in kept if is_generator(thing)]
        holdings = Holdings(named, optimizers, [k for k in kept if not is_generator(k)])
        self.step = arguments.step(step)
        self.safe = safe
        self.folder = None if folder is None else Path(folder)
        self.triggers: list[Trigger] = []
        self.replaying = False  # True while a batch is run again
        self.whence = whence(sys._getframe(2))
        self.gate = Gate(holdings, self._stranger)
        self.course = Course(holdings, self.gate, generators, every, ring)
        self.choice = Choice(on_trigger, limit, self.course)
        self._closed = False
        self._left: Trigger | None = None  # a trigger that a break left without its replay
        self._frame = 0  # id of the frame that calls the user's step; 0: the user's own loop
        newest.replaces(self)

    def __repr__(self) -> str:
        return f"Watch({self.course.count} steps, {len(self.triggers)} triggers)"

    def over(self, batches: Iterable) -> Iterator:
        """Go through the batches: ``for batch in watched.over(loader):``.

        The loop's body is the step. When its numbers blow up the same batch comes again, from
        the state and the random numbers that it had, under the tracer; then the loop goes on.
        What the body does outside of the watched state (a list of losses, a progress bar)
        happens again too; ``watched.replaying`` is True then. Give ``enumerate(loader)`` rather
        than enumerate the watched batches, so that the numbers stay right.

        Args:
            batches: a DataLoader or anything else that can be iterated.

        Raises:
            Blowup: a step was not finite and the choice was to raise, or the limit is reached.
        """
        self._frame = 0
        for batch in batches:
            for entry in self._episode((batch,), {}):
                yield entry.arguments()[0][0] if self.replaying else batch
        for entry in self._last():
            yield entry.arguments()[0][0]

    def __call__(self, *args, **kwargs) -> Any:
        """Run one step: ``loss = watched(batch)`` in the place of ``loss = step(batch)``.

        Args:
            *args, **kwargs: handed to the step.

        Returns:
            What the step returned; its loss is checked if it is a tensor, a number, the first
            number of a tuple, or the "loss", "total_loss" or "train_loss" of a dict.

        Raises:
            Blowup: the step was not finite and the choice was to raise, or the limit is reached.
            Whatever the step raises.
        """
        if self.step is None:
            raise TypeError(
                "watch: expected a step to call; none was given. Use watch(..., step=function), "
                "or loop over watched.over(batches)."
            )
        return self._drive(self._episode(args, kwargs), args, kwargs)

    def _drive(self, episode: Iterator[Entry], args: tuple = (), kwargs: dict | None = None) -> Any:
        results = []
        self._frame = id(sys._getframe())
        try:
            for entry in episode:
                again = entry.arguments() if self.replaying else (args, kwargs)
                results.append(self.step(*again[0], **again[1]))
                self.see(arguments.loss(results[-1]))
        finally:
            episode.close()  # if the step raised: instruments off, now
        return results[0] if results else None

    def see(self, loss: Any) -> None:
        """Show the loss of this batch, in a loop whose body computes it: it is then checked too.

        Without it a bad loss is found by the gradients that it makes.
        """
        self.gate.see(loss)

    def close(self) -> None:
        """Verify the last steps and take every hook away. A second call does nothing."""
        if self._closed:
            return
        try:
            if self.step is not None:
                self._drive(self._last())
            elif wrong := self.course.history and self.course.verify():
                self._leave(wrong, "the loop was left before these steps were verified")
                self.course.resume(self.course.ring[-1])
        finally:
            self.drop()
        if self._left is not None:
            raise Blowup(self._left)

    def drop(self) -> None:
        """Take every hook away, and verify nothing."""
        self._closed = True
        self.gate.close()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if error is None:
            self.close()
        else:
            self.drop()

    def replay(self) -> None:
        """Run the capsule that waits; `labkit replay` calls this."""
        self._drive(self._episode((), {}))

    def _episode(self, args: tuple, kwargs: dict) -> Iterator[Entry]:
        if self._closed:
            raise RuntimeError(
                "watch: it is closed; make a new one to go on. A newer watch on the same model "
                "or optimizer closes an older one."
            )
        course, whole = self.course, False
        try:
            yield from takeover.replay_if_waiting(self)
            if wrong := course.prepare():
                yield from self._attend(wrong)
            entry = course.record(*copied(args, kwargs, self.safe), copied=self.safe)
            yield from course.run(entry)
            if wrong := self.gate.trouble or self._scaler():
                yield from self._attend(wrong)
            else:
                course.accept(entry)
                self.choice.went_well(entry)
            whole = True
        except GeneratorExit:  # a break, or an error, in the body of the loop
            self._leave(self.gate.trouble, "the loop was left in this very step")
            raise
        finally:
            self.replaying = False
            if not whole:
                course.abandon()

    def _leave(self, reason: str, why: str) -> None:
        if reason:
            number, told = self.course.count - 1, (f"not replayed: {why}",)
            self._left = Trigger(number, number, reason, None, False, "raise", told)
            self.triggers.append(self._left)

    def _last(self) -> Iterator[Entry]:
        """After the last batch: was anything spoiled since the last verification?"""
        if self.course.history and not self.course.window and (wrong := self.course.verify()):
            try:
                yield from self._attend(wrong)
            finally:
                self.replaying = False

    def _scaler(self) -> str:
        row = self.course.refusals
        scales = [t.get_scale() for t in self.course.holdings.kept if hasattr(t, "get_scale")]
        if row >= arguments.SKIPS or any(scale < 1 for scale in scales):
            return f"the GradScaler refused {row} steps in a row; its scale is {min(scales):g}"
        return ""

    def _attend(self, reason: str) -> Iterator[Entry]:
        """Something is wrong: find out what, keep it, and do what the user chose."""
        present, seen = Randomness.now(self.course.generators), self.gate.evidence
        gradients, number = self.course.holdings.gradients(), self.course.count - 1
        self.replaying = True
        times = PATIENCE + 2 if self._scaler() == reason else 1
        finding = yield from inquire(self.course, seen, self._frame, times)
        self.replaying = False
        present.restore(self.course.generators)
        trigger = self._trigger(reason, number, finding)
        self.triggers.append(trigger)
        self.choice.act(trigger, finding, gradients)

    def _trigger(self, reason: str, number: int, finding: Finding | None) -> Trigger:
        told = remarks(finding, self._compiled or graphs() > self._graphs)
        step = number if finding is None else finding.entry.number
        report = None if finding is None else finding.report
        same = finding is not None and finding.again and not finding.differs
        trigger = Trigger(step, number, reason, report, same, self.choice.word, told)
        known = [str(t.report.culprit) for t in self.triggers if t.report and t.capsule]
        if finding is None or self.folder is None or str(report.culprit) in known:
            return trigger
        return save(self.folder, trigger, finding, self.course, self.whence)

    def _stranger(self, optimizer: Any, reason: str) -> None:
        """An optimizer steps outside of every watched batch, with gradients that are bad."""
        told = ("not replayed: the step ran outside of watched.over(...) and watched(...)",)
        trigger = Trigger(self.course.count, self.course.count, reason, None, False, "raise", told)
        self.triggers.append(trigger)
        self.gate.trouble = ""
        raise Blowup(trigger)
