"""A learner's function on the bench: "repaired", or "not yet" and a hint."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from types import ModuleType

from labkit.bench import Bench
from labkit.check.demands import demands
from labkit.check.fit import WRITE, NotYet, fits
from labkit.news import tell

ROUNDS = 3  # of timing; the median counts


@dataclass(frozen=True)
class Result:
    """What the check found. ``str(result)`` says it in a few lines; it is true if repaired."""

    passed: bool
    lines: tuple[str, ...] = ()  # each begins with ✓ or ✗
    hint: str = ""
    cost: float = field(default=math.nan, compare=False)  # CPU time of a healthy run, relative

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return "\n".join(("repaired" if self.passed else f"not yet: {self.hint}", *self.lines))

    __repr__ = __str__


def check(failure: Bench | ModuleType | str, mine: Callable) -> Result:
    """Put a learner's function in the place of the failure's form and report how it does.

    Nothing that the function does or raises comes through as an exception.

    Args:
        failure: a bench, a module of `labkit.failures`, or its name. A bench is not moved.
        mine: called as the failure's own forms are; it returns what they return.

    Returns:
        A `Result`. It asks whether the broken case is finite, its gradients alive and its value
        true; whether the healthy case is unchanged; and whether the other settings hold at which
        the library's own answer does. The cost is reported and not judged.

    Raises:
        ValueError: an unknown failure.
    """
    bench = failure if isinstance(failure, Bench) else Bench(failure)
    result = _checked(bench.failure, mine)
    tell("checked", bench.name, passed=result.passed, written=result.hint != WRITE)
    return result


def _checked(failure: ModuleType, mine: Callable) -> Result:
    try:
        fits(failure, mine)
    except NotYet as stop:
        return Result(False, (f"✗ {stop.line}",) if stop.line else (), stop.hint)
    found = list(demands(failure, mine))
    lines = tuple(f"{'✓' if demand.met else '✗'} {demand.line}" for demand in found)
    missed = [demand for demand in found if not demand.met]
    if missed:
        return Result(False, lines, missed[0].hint)
    return Result(True, lines, cost=_cost(failure, mine))


def _cost(failure: ModuleType, mine: Callable) -> float:
    """CPU time of a healthy run with the function, relative to one without it."""
    return median(_time(failure, mine) / _time(failure, None) for _ in range(ROUNDS))


def _time(failure: ModuleType, form: Callable | None) -> float:
    start = time.process_time()
    failure.run(failure.CASES["healthy"], repair=form)
    return time.process_time() - start
