"""Which step is guilty, and which line of it: found by running the steps again."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from labkit.probes.report import Report
from labkit.probes.session import Tracing
from labkit.watch.check import listed
from labkit.watch.course import Course
from labkit.watch.entry import Entry
from labkit.watch.gate import Evidence
from labkit.watch.holdings import Snapshot


@dataclass(frozen=True, slots=True)
class Finding:
    """The guilty batch, the state before it and what the tracer says."""

    entry: Entry
    before: Snapshot  # before this batch
    start: Snapshot  # before the window that it belongs to
    report: Report
    evidence: Evidence
    differs: list[str]  # names of what had other bits in the traced run
    again: bool  # the traced run went wrong too
    times: int  # how often it was run in one trace


def inquire(course: Course, seen: Evidence, frame: int = 0, times: int = 1) -> Iterator[Entry]:
    """Go back, run the batches again, and trace the first that goes wrong.

    Args:
        course: stands behind a batch that went wrong.
        seen: the bits that were bad.
        frame: id of the frame in which the user's program begins; 0: it is the outermost.
        times: how often to run the guilty batch in the trace.

    Returns:
        A `Finding`, or None where there is nothing to go back to. Program and random numbers
        are left as they were before the traced batch.
    """
    entries, direct = course.rewind()
    start = before = None
    for entry, previous in zip(entries, [None, *entries], strict=False):
        before = course.holdings.take()
        start = before if previous is None or previous.stepped else start
        if direct and len(entries) == 1:
            break  # there is no doubt, and the bad bits are at hand
        entry.randomness.restore(course.generators)
        yield from course.run(entry)
        seen = course.gate.evidence
        if entry is entries[-1] or wrong(course):
            course.holdings.restore(before)
            break
    else:
        return None
    return (yield from traced(course, entry, before, start, seen, frame, times))


def wrong(course: Course) -> bool:
    """Did the batch that just ran leave anything that is not finite?"""
    gradients = course.holdings.gradients().values()
    pending = [] if course.gate.passed else [grad for grad in gradients if grad is not None]
    bad = any(not grad.isfinite().all() for grad in pending)
    return bool(course.gate.trouble) or bad or not course.holdings.finite()


def traced(
    course: Course,
    entry: Entry,
    before: Snapshot,
    start: Snapshot,
    seen: Evidence,
    frame: int = 0,
    times: int = 1,
) -> Iterator[Entry]:
    """Run one batch under the tracer, with nothing held back, and undo what it did.

    Args:
        course: in the state `before`.
        entry: the batch.
        before: the state before it.
        start: the state before its window.
        seen: the bits of the first run.
        frame: id of the frame in which the user's program begins; 0: it is the outermost.
        times: how often to run it: the tracer forgives what a GradScaler refuses once.

    Returns:
        A `Finding`.
    """
    tracing = Tracing(course.holdings.named, course.holdings.optimizers, last_frame=frame)
    try:
        with eager(), tracing:
            for number in range(times):
                if number:
                    tracing.step()
                entry.randomness.restore(course.generators)
                yield from course.run(entry, refuse=False)
        again = times > 1 or wrong(course)
        now = course.gate.evidence
    finally:  # a break or an error in a step that nothing holds back
        course.holdings.restore(before)
    return Finding(entry, before, start, tracing.report, now, seen.differs(now), again, times)


@contextmanager
def eager():
    """Compiled functions run as they were written: the tracer sees ops, not kernels."""
    if "torch._dynamo" not in sys.modules:  # nothing can be compiled, and the import is slow
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def graphs() -> int:
    """How many graphs `torch.compile` has made in this process."""
    utils = sys.modules.get("torch._dynamo.utils")
    return utils.counters["stats"].get("unique_graphs", 0) if utils else 0


def remarks(finding: Finding | None, is_compiled: bool) -> tuple[str, ...]:
    """What the reader of a report must know about its replay."""
    if finding is None:
        return ("not reproduced: there was no finite state to go back to",)
    told = []
    if finding.entry.modified:
        told.append("the batch was modified in place; watch(safe=True) keeps a copy of it")
    if is_compiled:
        told.append("compiled parts ran eagerly in the replay: rounding may differ")
    if not finding.again:
        told.append("not reproduced: the step ran well when it was run again")
    elif finding.report.culprit is None:
        told.append("the tracer names no line: the bad value is on no way to a backward")
    if finding.again and finding.differs:
        told.append(f"not reproduced to the bit: {listed(finding.differs)}")
    return tuple(told)
