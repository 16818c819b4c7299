"""Is the accusation right, and is the repair one? Each answer says what to think of next."""

import math
from dataclasses import dataclass

from labkit.probes.trace import trace
from labkit.whodunit.faults import Fault
from labkit.whodunit.running import (
    Course,
    healthy_text,
    kept,
    number_of,
    paused,
)

LINE, CULPRIT = 30, 15  # points of an accusation
FINITE, ALIVE, TRUE = 10, 10, 20  # points of a repair
EARLY = 4  # first steps, whose losses must be yesterday's
SAME = 0.02  # relative, of an early loss: another way to round does not get this far
LATE = 0.15  # nats that the last loss may be above yesterday's


@dataclass(frozen=True)
class Found:
    """An answer in words, and what it is worth."""

    points: int
    passed: bool
    lines: tuple[str, ...]
    line_right: bool = False

    def __str__(self) -> str:
        return "\n".join(self.lines)

    __repr__ = __str__


def accused(fault: Fault, text: str, line: int, culprit: str) -> Found:
    """Judge an accusation by line and culprit."""
    rows, right = text.splitlines(), number_of(text, fault.changed)
    if not isinstance(line, int) or not 1 <= line <= len(rows):
        return Found(0, False, (f"✗ line: expected 1 to {len(rows)}; got {line!r}",))
    if line != right:
        return Found(0, False, (f"✗ line {line}: {_elsewhere(rows, line, right)}",))
    if not _names(culprit, fault.culprits):
        words = (
            f"✓ line {line}: this one was changed",
            f"✗ culprit {culprit!r}: name the call, or the number, that is to blame in it",
        )
        return Found(LINE, False, words, line_right=True)
    words = (f"✓ line {line}: this one was changed", f"✓ culprit: {culprit}")
    return Found(LINE + CULPRIT, True, words, line_right=True)


def judged(text: str, line: int, code: str) -> Found:
    """Train with a line replaced: finite, alive, and yesterday's losses."""
    rows = text.splitlines()
    if not isinstance(line, int) or not 1 <= line <= len(rows):
        return Found(0, False, (f"✗ repair: expected a line from 1 to {len(rows)}; got {line!r}",))
    if not isinstance(code, str) or "\n" in code.strip():
        return Found(0, False, ("✗ repair: expected one line of code, as text",))
    old = rows[line - 1]
    rows[line - 1] = old[: len(old) - len(old.lstrip())] + code.strip()
    new = "\n".join(rows) + "\n"
    try:
        compile(new, "repair", "exec")
    except SyntaxError as error:
        return Found(0, False, (f"✗ repair: not Python: {error.msg}",))
    course = kept(new)
    points, lines = 0, []
    for ask, worth in ((_finite, FINITE), (_alive, ALIVE), (_true, TRUE)):
        fault = ask(new, course)
        points += 0 if fault else worth
        lines.append(f"✗ {fault}" if fault else f"✓ {ask.__name__[1:]}")
        if fault and ask is _finite:
            break
    return Found(points, points == FINITE + ALIVE + TRUE, tuple(lines))


def _finite(text: str, course: Course) -> str:
    if course.stopped:
        return f"finite: the run stopped with {course.stopped}"
    values = (math.isfinite(v) for row in course.rows for v in row.values())
    bad = next((i for i, good in enumerate(values) if not good), None)
    if bad is None:
        return ""
    step = bad // len(course.rows[0])
    return f"finite: NaN or Inf from step {step} on. Repair where it is born, not where it shows"


def _alive(text: str, course: Course) -> str:
    program, net, optimizer, batch = paused(text, 2)
    report = trace(lambda: program.step(net, optimizer, batch), model=net, optimizers=optimizer)
    return "" if report.verdict == "healthy" else f"alive: {report}"


def _true(text: str, course: Course) -> str:
    before = kept(healthy_text()).losses
    for step, (was, now) in enumerate(zip(before[:EARLY], course.losses, strict=False)):
        if abs(now - was) > SAME * max(abs(was), 1.0):
            return (
                f"true: the loss of step {step} is {now:.3g}, yesterday it was {was:.3g}. A repair "
                "changes what was broken and nothing else"
            )
    if course.losses[-1] > before[-1] + LATE:
        return (
            f"true: the run ends at {course.losses[-1]:.3g}, yesterday at {before[-1]:.3g}. "
            "Something still does not learn"
        )
    return ""


def _elsewhere(rows: list[str], line: int, right: int) -> str:
    """Why a wrong line is wrong, without giving the right one away."""
    here, there = _function(rows, line), _function(rows, right)
    if here == there:
        return f"nobody touched it. You are in the right function: {here}"
    way = "earlier" if right < line else "later"
    return f"nobody touched it, nor anything in {here}. The changed line stands {way} in the file"


def _function(rows: list[str], line: int) -> str:
    for row in reversed(rows[:line]):
        if row.strip().startswith("def "):
            return row.strip()[4:].partition("(")[0]
    return "the top of the file"


def _names(culprit: str, accepted: tuple[str, ...]) -> bool:
    given = str(culprit).lower().replace("()", "").strip(" .`'\"")
    return given in {word.lower().strip(" .") for word in accepted}
