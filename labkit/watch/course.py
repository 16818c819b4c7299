"""The way of one batch through the watch: run, judged, and on trouble run again."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from labkit.watch.check import listed
from labkit.watch.entry import Entry, versions
from labkit.watch.gate import Gate
from labkit.watch.holdings import Holdings, Snapshot
from labkit.watch.randomness import Randomness

LONGEST = 1000  # batches without an optimizer step that are kept


class Course:
    """The batches since the last verified state, and the states themselves.

    A *window* is what lies between two optimizer steps: one batch, or several where gradients
    accumulate. No parameter changes in a window, so its start needs no copy of them.
    """

    def __init__(
        self, holdings: Holdings, gate: Gate, generators: Sequence[Any], every: int, ring: int
    ):
        self.holdings, self.gate, self.generators = holdings, gate, generators
        self.every = every
        self.ring: deque[Snapshot] = deque(maxlen=ring)  # verified: every value was finite
        self.history: list[Entry] = []  # the batches since the newest of them
        self.window: list[Entry] = []  # the batches since the last optimizer step
        self.light: Snapshot = {}  # what the forward pass may change, at the window's start
        self.count = 0
        self.refusals = 0  # steps in a row that a GradScaler did not take
        self.proven = True  # a state was verified after the last roll-back
        self.marks: list[int] = []  # versions of the parameters after the last batch
        self._start: list[int] = []  # and at the start of the window
        # Versions of the gradients then; -1: none. A reference would keep their memory from being
        # used again by this step's backward, which costs more than all else that is done here.
        self._gradients: list[int] = []

    def prepare(self) -> str:
        """Before a batch: verify the state and copy it, if it is time.

        Returns:
            What is wrong with the state, in words, or "".
        """
        if self.window:
            return ""
        elsewhere = bool(self.ring) and self.marks != self.holdings.versions()
        if not self.ring or elsewhere or len(self.history) >= self.every:
            return self.verify(elsewhere)
        return ""

    def verify(self, elsewhere: bool = False) -> str:
        """Check parameters, buffers and optimizer state; what is well enters the ring.

        Args:
            elsewhere: the state was changed between two batches, so a redo would lead nowhere.
        """
        self.holdings.refresh()
        if not self.holdings.finite() and (bad := self.holdings.bad()):
            if elsewhere:
                self.history.clear()
            return f"not finite: {listed(bad)}"
        self.ring.append(self.holdings.take())
        self.history.clear()
        self.proven = True
        return ""

    def record(self, args: tuple, kwargs: dict, copied: bool) -> Entry:
        """Note all that a second run of this batch will need."""
        if not self.window:
            self.light = self.holdings.take_light()
            self._start = self.holdings.versions()
            grads = (p.grad for p in self.holdings.parameters.values())
            self._gradients = [-1 if grad is None else grad._version for grad in grads]
        seen = None if copied else versions((args, kwargs))
        entry = Entry(self.count, args, kwargs, Randomness.now(self.generators), seen)
        self.count += 1
        self.history.append(entry)
        self.window.append(entry)
        return entry

    def run(self, entry: Entry, refuse: bool = True) -> Iterator[Entry]:
        """Let the driver run a batch, here and now."""
        self.gate.begin(refuse)
        before = [scale(thing) for thing in self.holdings.kept]
        try:
            yield entry
        finally:
            self.gate.end()
        self.gate.judge_loss()
        smaller = any(a > b for a, b in zip(before, map(scale, self.holdings.kept), strict=True))
        self.refusals = self.refusals + 1 if smaller else 0 if self.gate.passed else self.refusals
        entry.stepped = self.gate.passed > 0 or smaller

    def accept(self, entry: Entry) -> None:
        """The batch ran well."""
        self.marks = self.holdings.versions()
        if entry.stepped:
            self.window.clear()
        elif len(self.window) >= LONGEST:
            raise RuntimeError(
                f"watch: no optimizer step in {LONGEST} batches; got none from the optimizers "
                "that were given. Give every optimizer that steps, and watch training only."
            )

    @property
    def untouched(self) -> bool:
        """Does the start of the window differ from now only by what its forwards changed?"""
        unmoved = self._start == self.holdings.versions()
        return unmoved and self.gate.passed == 0 and not self._added_to()

    def _added_to(self) -> bool:
        """Did a backward of this window add to gradients that were there before?

        The same tensor then has a higher version. A step that cleared them made new ones.
        """
        grads = (p.grad for p in self.holdings.parameters.values())
        pairs = zip(grads, self._gradients, strict=True)
        return any(mark >= 0 and grad is not None and grad._version > mark for grad, mark in pairs)

    def rewind(self) -> tuple[list[Entry], bool]:
        """Go back to the nearest state that is known.

        Returns:
            The batches from there on, and whether that is the start of the window (else it is
            the last verified state). No batches if there is no state to go back to.
        """
        if self.window and self.untouched:
            self.holdings.restore(self.light)
            parameters = self.holdings.parameters.values()
            for parameter, mark in zip(parameters, self._gradients, strict=True):
                if mark < 0:  # others: the step clears them, as it did before
                    parameter.grad = None
            if self.holdings.finite():
                return list(self.window), True
        if not self.ring or not self.history:
            return [], False
        self.holdings.restore(self.ring[-1])
        return list(self.history), False

    def resume(self, state: Snapshot) -> None:
        """Go on from a state that is known to be good."""
        self.holdings.restore(state)
        self.holdings.clear_gradients()
        self.history.clear()
        self.window.clear()
        self.refusals = 0
        self.marks = self.holdings.versions()

    def abandon(self) -> None:
        """A batch ended in an error or a break: nobody knows how far it came."""
        self.window.clear()
        self.marks = []  # so the next batch begins with a fresh copy


def scale(thing: Any) -> float:
    """The loss scale of a GradScaler; 0 for anything else."""
    return thing.get_scale() if hasattr(thing, "get_scale") else 0.0


def plain(model: nn.Module) -> nn.Module:
    """The model as it was written, without the wrapper that `torch.compile` puts around it."""
    return getattr(model, "_orig_mod", model)
