"""What a repair must do: save the broken case, leave the healthy one, hold everywhere else."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from types import ModuleType
from typing import Any

from labkit.bench import Reading, knobs_of
from labkit.check.fit import NotYet, answer, told
from labkit.check.hints import HINTS, STOPPED, changed_hint, hint_for
from labkit.probes.verdict import Verdict

TRUE = 1e-4  # of the value, relative to float64; float32 rounding of one step stays near 1e-7
UNCHANGED = 1e-3  # of the healthy value; a smooth cap may touch the fourth digit
SAME_PULL = 0.05  # of each gradient's norm in the healthy run
SHARE = 0.01  # a smaller distance is told with one more digit
STOPS = 5  # settings tried along each numeric knob


@dataclass(frozen=True)
class Demand:
    """One thing that was asked of the function."""

    met: bool
    line: str
    hint: str = ""


def demands(failure: ModuleType, mine: Callable) -> Iterator[Demand]:
    """Ask everything of a function that fits on the bench; a demand that stops is not met."""
    for ask in (_repairs, _gentle, _wide, _by_hand):
        try:
            yield from ask(failure, mine)
        except NotYet as stop:
            yield Demand(False, stop.line, stop.hint)


def _repairs(failure: ModuleType, mine: Callable) -> Iterator[Demand]:
    """The broken case: no NaN and no infinity, every gradient alive, the value true."""
    reading = _run(failure, failure.CASES["broken"], mine)
    hint = hint_for(failure, reading)
    if reading.verdict in (Verdict.NAN, Verdict.INF):
        yield Demand(False, f"finite: {reading}", hint)
        return
    yield Demand(True, "finite: no NaN, no Inf")
    if reading.verdict in (Verdict.HEALTHY, Verdict.WRONG):
        yield _alive(failure, reading)
    else:
        yield Demand(False, f"alive: {reading}", hint)
    off = _distance(reading.value, reading.reference)
    true = off <= TRUE and reading.verdict != Verdict.WRONG
    much = f"{off:.0%}" if off >= SHARE else f"{off:.1%}"
    words = "agrees with float64" if true else f"{much} away from float64"
    wrong = reading.verdict == Verdict.WRONG  # also where the value agrees and a gradient does not
    off_hint = hint_for(failure, reading, Verdict.WRONG)
    yield Demand(true, f"true: {reading if wrong else words}", hint if wrong else off_hint)


def _alive(failure: ModuleType, reading: Reading) -> Demand:
    """Every parameter that the library's answer teaches must be taught."""
    theirs = _run(failure, failure.CASES["broken"], answer(failure))
    norms = _norms(reading)
    taught = [name for name, norm in _norms(theirs).items() if norm > 0]
    lost = [name for name in taught if not norms.get(name, 0.0) > 0]
    if lost:
        return Demand(False, f"alive: no gradient reaches {lost[0]}", HINTS[Verdict.SEVERED])
    return Demand(True, f"alive: {len(taught)} of {len(norms)} gradients")


def _gentle(failure: ModuleType, mine: Callable) -> Iterator[Demand]:
    """The healthy case: nothing changes."""
    plain, yours = (_run(failure, failure.CASES["healthy"], form) for form in (None, mine))
    norms = _norms(yours)
    known = {name: norm for name, norm in _norms(plain).items() if norm > 0}
    pull = max((_distance(norms[name], norm) for name, norm in known.items()), default=0.0)
    off = _distance(yours.value, plain.value)
    if yours.verdict != plain.verdict:
        yield Demand(False, f"gentle: the healthy run becomes {yours}", changed_hint(failure))
    elif off > UNCHANGED or pull > SAME_PULL:
        if getattr(failure, "REDRAWN", False):
            yield Demand(True, "gentle: the healthy run is another one, and as healthy")
            return
        what, much = ("value", off) if off > UNCHANGED else ("gradient", pull)
        yield Demand(False, f"gentle: a healthy {what} {_change(much)}", changed_hint(failure))
    else:
        extra = len(yours.report.ops) - len(plain.report.ops)
        yield Demand(True, f"gentle: the healthy run is unchanged, {extra:+d} tensor operations")


def _wide(failure: ModuleType, mine: Callable) -> Iterator[Demand]:
    """The other settings: the first that does not hold."""
    others = list(_others(failure))
    for settings, holds, hint in others:
        reading = _run(failure, settings, mine)
        if not (holds(reading) if callable(holds) else reading.verdict == holds):
            hint = hint or hint_for(failure, reading)
            yield Demand(False, f"wide: {_words(settings)}: {reading}", hint)
            return
    yield Demand(True, f"wide: holds at {len(others)} other settings")


def _by_hand(failure: ModuleType, mine: Callable) -> Iterator[Demand]:
    """The failure's own questions to the function alone: numbers that its model never feeds it.

    Each is a function that takes the learner's and returns what is wrong, "" if nothing is.
    """
    questions = getattr(failure, "BY_HAND", ())
    for question, hint in questions:
        try:
            wrong = question(mine)
        except (Exception, SystemExit) as error:
            raise NotYet(f"by hand: it stopped with {told(error)}", hint) from error
        if wrong:
            yield Demand(False, f"by hand: {wrong}", hint)
            return
    if questions:
        yield Demand(True, "by hand: right where the model does not come")


def _others(failure: ModuleType) -> Iterator[tuple[Any, Any, str]]:
    """Settings, the verdict (or a test of the reading) that must come out, and a hint.

    First the failure's own CHECKS; then each knob over its range, where the library's answer is
    healthy.
    """
    yield from getattr(failure, "CHECKS", ())
    broken = failure.CASES["broken"]
    for name, knob in knobs_of(failure.Settings).items():
        for value in knob.grid(STOPS) if name != failure.FORM_KNOB else ():
            settings = replace(broken, **{name: value})
            if settings != broken and _answer_holds(failure, settings):
                yield settings, Verdict.HEALTHY, ""


@lru_cache(maxsize=256)
def _answer_holds(failure: ModuleType, settings: Any) -> bool:
    return failure.run(settings, repair=answer(failure)).verdict == Verdict.HEALTHY


def _run(failure: ModuleType, settings: Any, form: Callable | None) -> Reading:
    try:
        return failure.run(settings, repair=form)
    except (Exception, SystemExit) as error:
        line = f"{_words(settings)}: it stopped with {told(error)}"
        raise NotYet(line, getattr(failure, "STOPPED", STOPPED)) from error


def _norms(reading: Reading) -> dict[str, float]:
    """Norm of each parameter's gradient; NaN where there is none."""
    return {fate.name: fate.norm for fate in reading.report.parameters}


def _distance(value: float, truth: float) -> float:
    """Relative distance; infinite where it cannot be told."""
    off = abs(value - truth) / (abs(truth) or 1.0)
    return math.inf if math.isnan(off) else off


def _change(much: float) -> str:
    return f"changes by {much:.1%}" if math.isfinite(much) else "is lost"


def _words(settings: Any) -> str:
    """The knobs that are not where they begin."""
    knobs = knobs_of(settings)
    moved = {n: getattr(settings, n) for n in knobs if getattr(settings, n) != knobs[n].default}
    words = (f"{n}={v:g}" if isinstance(v, float) else f"{n}={v}" for n, v in moved.items())
    return ", ".join(words) or "the healthy setting"
