"""A bench holds one failure mode; `turn` is the only door through which anything changes."""

import importlib
import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from functools import partial
from types import ModuleType
from typing import Any

from labkit.news import tell
from labkit.probes.report import Culprit, Report
from labkit.probes.verdict import Verdict


@dataclass(frozen=True)
class Knob:
    """One thing that a learner can turn: a range with a step and unit, or a choice of words."""

    name: str
    default: Any
    help: str
    unit: str = ""
    low: float = math.nan
    high: float = math.nan
    step: float = math.nan
    options: tuple[str, ...] = ()

    def check(self, value: Any) -> Any:
        """Return the value if it can be set; else say what was expected and what came."""
        if self.options:
            if value not in self.options:
                raise ValueError(
                    f"knob {self.name!r}: expected one of {', '.join(self.options)}; got {value!r}"
                )
            return value
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            raise ValueError(f"knob {self.name!r}: expected a number; got {value!r}")
        if not self.low <= value <= self.high:
            raise ValueError(
                f"knob {self.name!r}: expected {self.low:g} to {self.high:g} {self.unit}; "
                f"got {value!r}. Choose a value inside the range."
            )
        return float(value)

    def grid(self, count: int) -> tuple[Any, ...]:
        """Every option, or `count` values from end to end that lie on the step."""
        if self.options:
            return self.options
        last = round((self.high - self.low) / self.step)
        places = {round(last * i / max(count - 1, 1)) for i in range(count)}
        return tuple(round(self.low + place * self.step, 10) for place in sorted(places))


def dial(default: float, low: float, high: float, step: float, unit: str, help: str) -> Any:
    """A dataclass field that is a numeric knob."""
    shape = {"low": low, "high": high, "step": step, "unit": unit, "help": help}
    return field(default=default, metadata=shape)


def choice(default: str, options: Iterable[str], help: str) -> Any:
    """A dataclass field that is a knob with named positions."""
    return field(default=default, metadata={"options": tuple(options), "help": help})


def knobs_of(settings: Any) -> dict[str, Knob]:
    """The knobs that a settings dataclass (or an instance of it) declares, by name."""
    return {f.name: Knob(f.name, f.default, **f.metadata) for f in fields(settings)}


@dataclass(frozen=True)
class Claim:
    """What the guide says, and what was measured."""

    quote: str  # the guide's own words
    translation: str
    verdict: str  # holds, holds with a condition, incomplete guard, false
    truth: str

    def __str__(self) -> str:
        return f"The guide: {self.translation}\nMeasured: {self.verdict}. {self.truth}"


@dataclass(frozen=True, repr=False)
class Reading:
    """What the instruments show after one turn. ``str(reading)`` is one stable line of words."""

    settings: Any  # the knobs, a frozen dataclass of the failure
    verdict: Verdict
    report: Report
    value: float  # what the failure computes, usually the loss
    reference: float  # the same in float64
    note: str = ""  # one clause that only this failure can say

    @property
    def culprit(self) -> Culprit | None:
        return self.report.culprit

    @property
    def detail(self) -> str:
        """The line without its first word."""
        line = str(self.report).partition(": ")[2]
        return f"{line}; {self.note}" if self.note else line

    def __str__(self) -> str:
        return f"{self.verdict}: {self.detail}"

    __repr__ = __str__  # in a notebook: one line, not the whole trace


class Bench:
    """One failure mode on the bench.

    Args:
        failure: a module of `labkit.failures`, or its name.

    Raises:
        ValueError: an unknown failure, case or knob, or a value out of range; the message
            lists what exists.
    """

    def __init__(self, failure: ModuleType | str):
        self.failure = _module(failure) if isinstance(failure, str) else failure
        self.knobs = knobs_of(self.failure.Settings)
        self.settings = self.failure.CASES["healthy"]
        self.repair: Callable | None = None
        self.reading: Reading | None = None
        self._listeners: list[Callable[[Reading], None]] = []

    @property
    def name(self) -> str:
        """Of the failure, as in ``Bench(name)``."""
        return self.failure.__name__.rpartition(".")[2]

    def turn(self, case: str | None = None, *, repair: Any = ..., **settings: Any) -> Reading:
        """Set a case, some knobs or a repair, run once and return the reading.

        Args:
            case: ``healthy``, ``broken``, ``repaired`` or another name in the failure's CASES.
            repair: a function in place of the library's form; None goes back to the library's.
                Without it the last one stays, until a form is asked for by name: by the case
                ``repaired``, or by the knob that chooses the form.
            **settings: knobs by name; those not named stay where they are.
        """
        wanted = replace(self._case(case), **self._checked(settings))
        if repair is not ... and repair is not None and not callable(repair):
            raise ValueError(f"repair: expected a function or None; got {repair!r}")
        form_knob = getattr(self.failure, "FORM_KNOB", None)
        if repair is ... and (case == "repaired" or form_knob in settings):
            repair = None
        chosen = self.repair if repair is ... else repair
        reading = self.failure.run(wanted, repair=chosen)
        self.settings, self.repair, self.reading = wanted, chosen, reading
        for listener in tuple(self._listeners):
            listener(reading)
        tell("turned", self.name, verdict=str(reading.verdict))
        return reading

    def sweep(self, knob: str, values: Iterable[Any] | int = 9) -> tuple[Reading, ...]:
        """Readings along one knob, the others as they are; the bench itself does not move."""
        self._checked({knob: self.knobs[knob].default} if knob in self.knobs else {knob: None})
        points = self.knobs[knob].grid(values) if isinstance(values, int) else tuple(values)
        wanted = [replace(self.settings, **self._checked({knob: point})) for point in points]
        return tuple(self.failure.run(settings, repair=self.repair) for settings in wanted)

    def map(
        self, x: str = "", y: str = "", xs: Iterable[Any] | int = 12, ys: Iterable[Any] | int = 9
    ) -> Any:
        """Verdicts over two knobs, the others as they are; the bench itself does not move.

        Args:
            x, y: two knobs. Without them the map that the failure declares: it is read from a
                file that was measured ahead of time, or measured if a repair is on the bench.
            xs, ys: their values in order, or how many between their ends.

        Returns:
            A `labkit.maps.FailureMap`.

        Raises:
            ValueError: an unknown knob, the same twice, or no knobs where no map is declared.
        """
        from labkit import maps

        declared = getattr(self.failure, "MAP", None)
        if not x and not y and declared:
            if self.repair is None:
                return maps.stored(self.failure, self.settings)
            (x, xs), (y, ys) = declared.items()  # stored maps know nothing of this repair
        if x == y or not {x, y} <= self.knobs.keys():
            known = ", ".join(self.knobs)
            raise ValueError(f"map: expected two knobs out of {known}; got {x!r} and {y!r}")
        points = (
            self.knobs[knob].grid(values)
            if isinstance(values, int)
            else tuple(self.knobs[knob].check(value) for value in values)
            for knob, values in ((x, xs), (y, ys))
        )
        run = partial(self.failure.run, repair=self.repair)
        return maps.measured(run, self.settings, x, y, *points)

    def watch(self, listener: Callable[[Reading], None]) -> Callable[[], None]:
        """Call `listener(reading)` after every turn; returns a function that ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def code(self) -> str:
        """The one line that reproduces the present setting."""
        changed = [
            f"{knob}={getattr(self.settings, knob)!r}"
            for knob in self.knobs
            if getattr(self.settings, knob) != self.knobs[knob].default
        ]
        return f"Bench({self.name!r}).turn({', '.join(changed)})"

    def source(self, form: str | None = None) -> str:
        """The source of one of the failure's forms; of the one in use if none is named."""
        form = form or getattr(self.settings, self.failure.FORM_KNOB)
        return inspect.getsource(self.failure.FORMS[self.knobs[self.failure.FORM_KNOB].check(form)])

    def _case(self, case: str | None) -> Any:
        if case is None:
            return self.settings
        if case not in self.failure.CASES:
            known = ", ".join(self.failure.CASES)
            raise ValueError(f"case: expected one of {known}; got {case!r}")
        return self.failure.CASES[case]

    def _checked(self, settings: dict[str, Any]) -> dict[str, Any]:
        unknown = settings.keys() - self.knobs.keys()
        if unknown:
            known = ", ".join(self.knobs)
            raise ValueError(f"knob: expected one of {known}; got {', '.join(sorted(unknown))}")
        return {name: self.knobs[name].check(value) for name, value in settings.items()}


def _module(name: str) -> ModuleType:
    from labkit import failures

    if name not in failures.names():
        known = ", ".join(failures.names())
        raise ValueError(f"failure: expected one of {known}; got {name!r}")
    return importlib.import_module(f"labkit.failures.{name}")
