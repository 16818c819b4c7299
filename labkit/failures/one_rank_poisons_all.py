"""One rank poisons all: a NaN that is shared out fairly, and a skip that leaves the other waiting.

Two processes train one model, each on cells of its own, and take the mean of their gradients. A
NaN on one rank is in the mean, so it is on both. If the sick rank stays away instead, the other
one meets its next step in place of the present one, and waits for ever at the end.
"""

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch

from labkit.bench import Claim, Reading, choice, dial
from labkit.failures import _rank
from labkit.failures._rank import RATE, SICK, STEPS, fresh, loss_of
from labkit.failures._ranks import Story, both
from labkit.probes.report import Culprit, Link, Report
from labkit.probes.verdict import Verdict

Form = Callable[[bool, Callable[[float], float]], bool]


def take_it(finite: bool, minimum: Callable[[float], float]) -> bool:
    """Take every step."""
    return True


def skip_alone(finite: bool, minimum: Callable[[float], float]) -> bool:
    """Each rank looks after itself: continue, where its own numbers are bad."""
    return finite


def vote_if_well(finite: bool, minimum: Callable[[float], float]) -> bool:
    """A vote, to which the sick rank does not come."""
    return finite and bool(minimum(1.0))


def agree(finite: bool, minimum: Callable[[float], float]) -> bool:
    """Everybody votes, always; one no is a no for all."""
    return bool(minimum(float(finite)))


TITLE = "One rank poisons all"
NICKNAME = "shared fairly"
SYMPTOM = "Every rank is NaN, though the data of this one is fine; or the job just stands still."
CLAIM = Claim(
    quote="每个batch后检测loss: if torch.isnan(loss): raise",
    translation="check the loss after every batch, and raise if it is NaN",
    verdict="incomplete guard",
    truth="With two ranks the healthy one has a finite loss and NaN weights after the same step. "
    "Where only the sick rank skips or raises, the other waits for it until gloo gives up.",
)
SOURCES = (
    "Li et al. (2020), PyTorch Distributed: Experiences on Accelerating Data Parallel Training, "
    "VLDB 13: gradients are averaged by all-reduce",
    "PyTorch documentation, torch.distributed: every rank must call a collective, in one order",
)
CARD = {
    "cause": "All-reduce hands a NaN to everybody. A collective waits for every rank.",
    "repair": "Vote before the gradients meet: the minimum of a flag over all ranks. Everybody "
    "votes, always.",
    "proof": "Make one rank sick: all skip the same step, and all weights stay equal and finite.",
}
FORMS: dict[str, Form] = {
    "take it": take_it,
    "skip alone": skip_alone,
    "vote if well": vote_if_well,
    "agree": agree,
}
FORM_KNOB = "guard"
ACCIDENTS = ("none", "NaN loss", "NaN gradient")
HINTS = {
    Verdict.NAN: "this rank was well, and got the NaN of the other with the mean. It must hear of "
    "it before the gradients meet: `minimum` takes the smallest value over both ranks.",
    Verdict.DEADLOCK: "one rank did not come to a meeting, so the other met its next step instead, "
    "and in the end nobody. Call `minimum` on every rank in every step, whatever `finite` is: "
    "also `and` stays away when its left side is false.",
    Verdict.WRONG: "a step was skipped that was well. Take it where both ranks are finite.",
}


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    accident: str = choice("none", ACCIDENTS, "to rank 1, in its first step of three")
    patience: float = dial(1.0, 1.0, 3.0, 1.0, "s", "until a rank that waits gives up")
    guard: str = choice("take it", FORMS, "between backward and the mean of the gradients")


CASES = {
    "healthy": Settings(),
    "broken": Settings(accident="NaN loss"),
    "deadlock": Settings(accident="NaN loss", guard="skip alone"),
    "repaired": Settings(accident="NaN loss", guard="agree"),
}
CHECKS = ((Settings(accident="NaN gradient"), Verdict.HEALTHY, ""),)


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """Three steps of two real processes that average their gradients; what rank 0 saw.

    Args:
        settings: the knobs.
        repair: a function of "are my loss and my gradients finite?" and of `minimum`, which takes
            the smallest of a number over both ranks. It says whether to take the step.
    """
    guard = repair or FORMS[settings.guard]
    stories = both().train(guard, settings.accident, settings.patience)
    wanted = [s for s in range(STEPS) if settings.accident == "none" or s != SICK]
    report = judged(stories, wanted, settings, guard)
    value = stories[0].losses[-1]
    return Reading(settings, report.verdict, report, value, _reference(len(wanted)))


def meetings(guard: str, accident: str = "NaN loss") -> list[str]:
    """Who met whom: the steps whose gradients were averaged, in words."""
    stories = both().train(FORMS[guard], accident, wait=1.0)
    pairs = list(zip(*(story.done for story in stories), strict=True))
    lines = [f"rank 0 brings step {a}, rank 1 brings step {b}" for a, b in pairs]
    late = [f"rank {rank} waits for nobody" for rank, s in enumerate(stories) if s.late]
    bad = ", ".join(str(story.bad) for story in stories)
    return [*lines, *late, f"parameters that are not finite, on each rank: {bad}"]


def judged(
    stories: tuple[Story, Story], wanted: list[int], settings: Settings, guard: Form
) -> Report:
    """The report of rank 0, and what only who sees both ranks can know."""
    report, other = stories[0].report, stories[1]
    if any(story.late for story in stories):
        first, second = (sum(story.entered.values()) for story in stories)
        came = f"rank 0 came {first} times, rank 1 {second} times"
        why = f"{came}; gave up after {settings.patience:g} s"
        return _blamed(report, Verdict.DEADLOCK, _meeting(STEPS - 1, why), "not updated")
    if report.verdict in (Verdict.NAN, Verdict.INF):  # the tracer does not hear gloo write
        why = f"rank 1 brought a NaN; this rank's own loss was {stories[0].losses[SICK]:.0f}"
        return _poisoned(report, _meeting(SICK, why))
    if stories[0].done != wanted or other.done != wanted:
        why = f"steps taken: {stories[0].done or 'none'}, well were {wanted}"
        return _blamed(report, Verdict.WRONG, _guard(guard, why), "not updated")
    return report


def _poisoned(report: Report, culprit: Culprit) -> Report:
    """The report with the meeting to blame, and not the first operation behind it."""
    heard = report.culprit.position
    at = max(op.index for op in report.ops[:heard] if "allreduce" in op.name)
    born = Link("born", at, f"{culprit.op} at {culprit.place}: NaN from rank 1")
    chain = (born, *report.chain[1:])
    return replace(report, culprit=replace(culprit, position=at), chain=chain)


def _meeting(step: int, why: str) -> Culprit:
    """The line at which every rank must come."""
    lines, first = inspect.getsourcelines(_rank.Rank.step)
    at = next(i for i, line in enumerate(lines) if "all_reduce(flat" in line)
    place = ("_rank.py", first + at, lines[at].strip(), "", "Rank.step", step)
    return Culprit("backward", "all_reduce", *place, remark=why)


def _guard(guard: Form, why: str) -> Culprit:
    """The line of the guard that skipped too much."""
    lines, first = inspect.getsourcelines(guard)
    name = os.path.basename(inspect.getsourcefile(guard))
    place = (name, first, lines[0].strip(), "", guard.__name__, 0)
    return Culprit("optimizer", "skip", *place, remark=why)


def _blamed(report: Report, verdict: Verdict, culprit: Culprit, word: str) -> Report:
    fates = tuple(replace(fate, word=word) for fate in report.parameters)
    files = {**dict(report.files), "_rank.py": _rank.__file__}
    chain = (Link("harmed", None, culprit.remark),)
    return replace(
        report,
        verdict=verdict,
        culprit=culprit,
        parameters=fates,
        chain=chain,
        files=tuple(files.items()),
    )


@cache
def _reference(steps: int) -> float:
    """The last loss of rank 0 where one process takes the last steps, in float64."""
    model = fresh().double()
    for step in range(STEPS - steps, STEPS - 1):
        losses = [loss_of(model, step, rank) for rank in (0, 1)]
        grads = torch.autograd.grad(sum(losses) / 2, list(model.parameters()))
        with torch.no_grad():
            for p, grad in zip(model.parameters(), grads, strict=True):
                p -= RATE * grad
    with torch.no_grad():
        return float(loss_of(model, STEPS - 1, 0))
