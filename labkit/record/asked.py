"""`predict` and `hint`: the question and the hints are read from the notebook itself."""

from dataclasses import dataclass
from typing import Any

from labkit.bench import Bench
from labkit.news import tell
from labkit.record.books import questions_of


@dataclass(frozen=True)
class Note:
    """A line of words; a notebook shows it as it is."""

    text: str

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


_given: dict[str, int] = {}  # hints of this session, by failure


def predict(bench: Bench | str, choice: str | Any = None) -> Note:
    """Note what you think will happen, before you look.

    The first prediction for a failure is the one that is recorded. Whether it was right stands in
    your record; the notebook's folded answer says why.

    Args:
        bench: a bench, or the name of a failure.
        choice: the letter of one of the notebook's answers. Without it nothing is noted.

    Raises:
        ValueError: no such choice.
    """
    name = _named(bench)
    asked = questions_of(name)
    known = ", ".join(asked.choices) or "A, B, C, D"
    if choice is None or choice is ...:
        return Note(f"not attempted: choose one of {known}, as in predict(bench, 'A')")
    letter = str(choice).strip().upper()
    if letter not in (asked.choices or "ABCD"):
        raise ValueError(f"choice: expected one of {known}; got {choice!r}")
    right = letter == asked.key if asked.key else None
    tell("predicted", name, choice=letter, right=right)
    return Note(f"noted: {letter}. Now look, and then open the answer.")


def hint(bench: Bench | str) -> Note:
    """The next hint for this failure's exercise; how many you took stands in your record.

    Args:
        bench: a bench, or the name of a failure.
    """
    name = _named(bench)
    hints = questions_of(name).hints
    if not hints:
        return Note("this notebook has no hints here; look below its exercise")
    number = _given.get(name, 0) + 1
    if number > len(hints):
        return Note("no more hints. answer(bench) shows the library's own repair, folded.")
    _given[name] = number
    tell("hinted", name, number=number)
    return Note(f"hint {number} of {len(hints)}: {hints[number - 1]}")


def _named(bench: Bench | str) -> str:
    bench = bench if isinstance(bench, Bench) else Bench(bench)
    return bench.name
