"""A capsule waits until a program watches its first batch, and then takes that batch's place."""

from collections.abc import Iterator
from contextlib import contextmanager

from labkit.watch.capsule import Capsule
from labkit.watch.course import Course
from labkit.watch.entry import Entry
from labkit.watch.inquiry import Finding, traced

_waiting: list[Capsule] = []


class Replayed(BaseException):
    """Ends a program once its capsule was replayed; no ``except Exception`` may swallow it."""

    def __init__(self, finding: Finding):
        super().__init__("the capsule was replayed")
        self.finding = finding


@contextmanager
def waiting(capsule: Capsule):
    """Let a capsule take over the first watched batch in this block."""
    _waiting.append(capsule)
    try:
        yield
    finally:
        _waiting.clear()


def replay_if_waiting(watched) -> Iterator[Entry]:
    """Replay the capsule, if one waits, instead of the program's own first batch.

    Args:
        watched: the `Watch` whose first batch begins.

    Raises:
        Replayed: with what was found.
        ValueError: the program is of another make than the capsule.
    """
    if not _waiting:
        return
    capsule, course = _waiting.pop(), watched.course
    watched.replaying = True
    _compare(capsule, course)
    entry = capsule.entry(len(course.generators))
    _put(capsule, course)
    state = course.holdings.take()
    seen, frame = capsule.evidence, watched._frame
    finding = yield from traced(course, entry, state, state, seen, frame, capsule.times)
    raise Replayed(finding)


def _compare(capsule: Capsule, course: Course) -> None:
    course.holdings.refresh()
    here = {name: tuple(p.shape) for name, p in course.holdings.parameters.items()}
    there = {name: tuple(p.shape) for name, p in capsule.state["parameters"].items()}
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise ValueError(
                f"{capsule.path.name}: expected {name} of shape {there.get(name)}; the program "
                f"has {here.get(name)}. Start the program that wrote the capsule."
            )
    counts = len(course.holdings.optimizers), len(course.holdings.kept)
    wanted = len(capsule.state["optimizers"]), len(capsule.state["kept"])
    if counts != wanted:
        raise ValueError(
            f"{capsule.path.name}: expected {wanted[0]} optimizers and {wanted[1]} kept objects; "
            f"the program has {counts[0]} and {counts[1]}"
        )


def _put(capsule: Capsule, course: Course) -> None:
    for model, training in zip(course.holdings.models, capsule.modes["training"], strict=True):
        for name, module in model.named_modules():
            module.training = name in training
    for name, parameter in course.holdings.parameters.items():
        parameter.requires_grad_(name not in capsule.modes["frozen"])
    course.holdings.restore(capsule.state)
