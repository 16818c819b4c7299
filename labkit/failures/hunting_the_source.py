"""Hunting the source: who is to blame for a bad number that everybody has?

A NaN is handed on to all who come after it. The hunt goes through the events of one training
step, forward and backward, and names the first that is guilty. What it names is mended.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from labkit.bench import Claim, Reading, choice
from labkit.failures._detectors import line_up  # noqa: F401  for the notebook
from labkit.failures._hunted import BORN
from labkit.failures._whole import blamed
from labkit.probes.report import Op, Report
from labkit.probes.stats import Stats
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict

RANK = ("ok", "inf", "nan")


@dataclass(frozen=True)
class Event:
    """One operation of a training step, as a hunter sees it; str(event) is one line."""

    op: str  # "exp", "SqrtBackward0"
    line: int
    given: str  # the worst of what went in: ok, inf or nan
    made: str  # the worst of what came out
    reaches: bool  # what is bad in it reaches the loss, a gradient or a parameter

    def __str__(self) -> str:
        where = "reaches" if self.reaches else "" if self.made == "ok" else "lost on the way"
        told = f"{self.op:16} line {self.line:3}  {self.given:>3} -> {self.made:3}  {where}"
        return told.rstrip()


Form = Callable[[Sequence[Event]], int]


def first_nan(events: Sequence[Event]) -> int:
    """The first that makes a NaN."""
    return next((i for i, event in enumerate(events) if event.made == "nan"), -1)


def first_bad(events: Sequence[Event]) -> int:
    """The first that makes a NaN or an infinity."""
    return next((i for i, event in enumerate(events) if event.made != "ok"), -1)


def born_of_good(events: Sequence[Event]) -> int:
    """The first that makes something bad of good numbers alone."""
    born = (i for i, event in enumerate(events) if event.given == "ok" != event.made)
    return next(born, -1)


def made_worse(events: Sequence[Event]) -> int:
    """The first that makes worse what it was given, where that reaches something that counts."""
    for i, event in enumerate(events):
        if event.reaches and RANK.index(event.made) > RANK.index(event.given):
            return i
    return -1


TITLE = "Hunting the source"
NICKNAME = "the last one to touch it is not the one who broke it"
SYMPTOM = "Everything is NaN, and the tool that found it points at an innocent line."
CLAIM = Claim(
    quote="torch.autograd.detect_anomaly(): 自动检测异常",
    translation="torch.autograd.detect_anomaly() detects anomalies by itself",
    verdict="incomplete guard",
    truth="It hears NaN in the output of a backward function, and nothing else. Of 10 planted "
    "faults it names 3 lines, points at an innocent line 4 times and is silent 3 times.",
)
SOURCES = (
    "Zeller (2009), Why Programs Fail: from the failure back to the infection, and to the defect",
    "PyTorch documentation, torch.autograd.detect_anomaly",
)
CARD = {
    "cause": "A bad number is handed on. The first alarm is where it was heard, not where it is "
    "from.",
    "repair": "Name the first operation that makes worse what it was given, and whose result "
    "reaches something that counts.",
    "proof": "Mend that line alone: the whole step is healthy.",
}
AGAIN = (
    "the hunt named an innocent event, or none, so the fault is still there. Print the events. An "
    "infinity is as bad as a NaN; a mask's infinity goes in and comes out again; a softmax can "
    "make NaN of infinity; what is lost on the way harms nobody."
)
HINTS = {
    **dict.fromkeys((Verdict.INF, Verdict.NAN), AGAIN),
    Verdict.WRONG: "it accuses a healthy program. An infinity that goes in and comes out again was "
    "put there on purpose: ask who made it worse.",
}
FORMS: dict[str, Form] = {
    "first NaN": first_nan,
    "first bad": first_bad,
    "born of good": born_of_good,
    "made worse": made_worse,
}
FORM_KNOB = "hunt"
ACCUSED = "is accused, and nothing is wrong"


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    fault: str = choice("none", BORN, "what is planted")
    hunt: str = choice("first NaN", FORMS, "who is named")


CASES = {
    "healthy": Settings(),
    "broken": Settings(fault="KL overflow"),
    "repaired": Settings(fault="KL overflow", hunt="made worse"),
}
CHECKS = tuple((Settings(fault=fault), Verdict.HEALTHY, AGAIN) for fault in BORN if fault != "none")


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """One training step with a planted fault; mended, if the hunt names its line.

    The reference is the loss of the mended program.

    Args:
        settings: the knobs.
        repair: a function of the events of the step, in order, that returns the number of the
            guilty one, or -1 if there is none.
    """
    report, mended = _traced(settings.fault, True), _traced(settings.fault, False)
    ops, note = _happened(report), ""
    named = (repair or FORMS[settings.hunt])([event(op) for op in ops])
    accused = ops[named] if 0 <= named < len(ops) else None
    if settings.fault == "none":
        # The tracer sees no fault; that somebody is accused all the same is known here alone.
        report = _slandered(report, accused) if accused else report
    elif accused and accused.source.endswith("# fault"):
        report = mended
    else:
        note = f"named: {accused.name} at {accused.place}" if accused else "nobody was named"
    return Reading(settings, report.verdict, report, report.losses[0], mended.losses[0], note)


def events(fault: str) -> list[Event]:
    """What happens in a step with this fault, in order."""
    return [event(op) for op in _happened(_traced(fault, True))]


def event(op: Op) -> Event:
    """An operation of a report, as a hunter sees it."""
    return Event(op.name, op.line, _worst(op.inputs), _worst(op.outputs), op.harmful)


def _traced(fault: str, broken: bool) -> Report:
    step, model = BORN[fault](broken)
    return trace(step, model=model)


def _happened(report: Report) -> list[Op]:
    return [op for op in report.ops if op.phase != "source"]


def _worst(stats: Sequence[Stats]) -> str:
    words = (each.word for each in stats if each.word in RANK)
    return max(words, key=RANK.index, default="ok")


def _slandered(report: Report, op: Op) -> Report:
    culprit = blamed(op, ACCUSED)
    return replace(report, verdict=Verdict.WRONG, culprit=culprit)
