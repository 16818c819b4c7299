"""One case: symptoms, a budget of probes, an accusation, a repair, a score."""

from collections.abc import Callable
from typing import Any

from labkit.news import tell
from labkit.whodunit import probes
from labkit.whodunit.judge import Found, accused, judged
from labkit.whodunit.running import FILE, healthy_text, kept, number_of, swapped
from labkit.whodunit.seeds import fault_of

BUDGET = 20  # points for probes; what is left counts
SAVED = 15  # points for a budget that was not touched; line, culprit and repair give 85
WRONG = 5  # points lost by each wrong accusation
STORY = """\
Case {seed}. Somebody changed one line of {file} yesterday evening. Nobody remembers which.

Yesterday's run:
{before}

Today's run:
{after}

You have {left} of {budget} points for probes: {prices}."""


class Words(str):
    """Text that a notebook shows as it is."""

    __repr__ = str.__str__


class Case:
    """A seeded case. ``case`` shows the symptoms; each probe costs points of the budget.

    Args:
        seed: the same seed is the same case for everybody.

    Raises:
        ValueError: not a whole number of at least 0.
    """

    def __init__(self, seed: int):
        self._fault = fault_of(seed)
        self._text = swapped(healthy_text(), self._fault.line, self._fault.changed)
        self._bought: dict[tuple, Words] = {}
        self.seed, self.spent, self.wrong = seed, 0, 0
        self.found: Found | None = None
        self.repaired: Found | None = None

    def __repr__(self) -> str:
        prices = ", ".join(f"{name} {price}" for name, price in probes.PRICES.items())
        runs = {"before": kept(healthy_text()).log(), "after": kept(self._text).log()}
        left = {"left": BUDGET - self.spent, "budget": BUDGET, "prices": prices}
        return STORY.format(seed=self.seed, file=FILE, **runs, **left)

    def batch(self, step: int = 0) -> Words:
        """What goes into a step."""
        return self._buy("batch", probes.batch, step)

    def outputs(self, function: str, step: int = 0) -> Words:
        """What a function, or a method of the net, returns in a step."""
        return self._buy("outputs", probes.outputs, function, step)

    def state(self, step: int = 0) -> Words:
        """What stays between two steps: buffers, and what the optimizer remembers."""
        return self._buy("state", probes.state, step)

    def moved(self) -> Words:
        """How far each parameter went in the whole run."""
        return self._buy("moved", probes.moved)

    def gradients(self, step: int = 0) -> Words:
        """The gradient of each parameter in a step."""
        return self._buy("gradients", probes.gradients, step)

    def slope(self, parameter: str, step: int = 0) -> Words:
        """Does a gradient agree with a finite difference of the loss?"""
        return self._buy("slope", probes.slope, parameter, step)

    def read(self, function: str) -> Words:
        """The source of one function or method, its lines numbered."""
        return self._buy("read", probes.read, function)

    def trace(self, step: int = 0) -> Words:
        """The tracer's reading of one step."""
        return self._buy("trace", probes.trace_step, step)

    def _buy(self, name: str, probe: Callable[..., str], *arguments: Any) -> Words:
        """Pay for a probe once; what was bought stays, and an error in the call costs nothing."""
        what, price = (name, *arguments), probes.PRICES[name]
        if what not in self._bought:
            if price > BUDGET - self.spent:
                left = BUDGET - self.spent
                return Words(f"{name} costs {price} and {left} are left: accuse, or look cheaper.")
            self._bought[what] = Words(_tried(probe, self._text, *arguments))
            self.spent += price
        return self._bought[what]

    def accuse(self, line: int, culprit: str) -> Found:
        """Say which line was changed, and what in it is to blame.

        Args:
            line: its number, as `read` and `trace` show it.
            culprit: one word of it: the name of a call, or the number.
        """
        result = accused(self._fault, self._text, line, culprit)
        if self.found is None or not self.found.line_right:
            self.wrong += not result.line_right
        if self.found is None or result.points >= self.found.points:
            self.found = result
        return result

    def repair(self, line: int, code: str) -> Found:
        """Put other code in the place of a line, train again, and compare with yesterday's run.

        Args:
            line: its number.
            code: what shall stand there; the indentation is kept.
        """
        result = judged(self._text, line, code)
        if self.repaired is None or result.points > self.repaired.points:
            self.repaired = result
        if self.repaired.passed and self.found is not None and self.found.line_right:
            tell("solved", "whodunit", seed=self.seed, score=self.score, line=self.line())
        return result

    def check(self, mine: Callable[["Case"], Any]) -> Words:
        """Run a function that gets the case and returns line, culprit and the new code."""
        answer = mine(self)
        if answer is None or answer is ...:
            return Words("not yet: write the function first")
        if not isinstance(answer, tuple) or len(answer) != 3:
            return Words(f"not yet: expected (line, culprit, code); got {answer!r}")
        line, culprit, code = answer
        said = [self.accuse(line, culprit), self.repair(line, code)]
        return Words("\n".join([*map(str, said), self.line()]))

    @property
    def score(self) -> int:
        """Out of 100: the line, its culprit, the repair, and what you did not spend."""
        found = self.found.points if self.found else 0
        repaired = self.repaired.points if self.repaired else 0
        solved = bool(self.found and self.found.line_right and self.repaired)
        saved = SAVED * (BUDGET - self.spent) // BUDGET if solved and self.repaired.passed else 0
        return max(0, found + repaired + saved - WRONG * self.wrong)

    def line(self) -> str:
        """One line to compare with a colleague who had the same case."""
        ends = (self.found and self.found.line_right, self.repaired and self.repaired.passed)
        words = ("found" if ends[0] else "not found", "repaired" if ends[1] else "not repaired")
        return (
            f"case {self.seed}: {self.score} of 100, {', '.join(words)}, probes {self.spent} of "
            f"{BUDGET}, wrong accusations {self.wrong}"
        )

    def give_up(self) -> Words:
        """The changed line, and what it does."""
        fault = self._fault
        number = number_of(self._text, fault.changed)
        return Words(f"line {number}: {fault.changed}\nwas: {fault.line}\n{fault.lesson}")


def _tried(probe: Callable[..., str], *arguments: Any) -> str:
    try:
        return probe(*arguments)
    except RuntimeError as error:  # the suspect's, and so part of the evidence
        return f"it stopped with {type(error).__name__}: {str(error).splitlines()[0]}"
