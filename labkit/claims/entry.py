"""A claim, the function that runs it, and what the run found."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

HOLDS = "holds"
CONDITION = "holds with a condition"
INCOMPLETE = "incomplete guard"
FALSE = "false"
UNCHECKED = "cannot be checked"
VERDICTS = (HOLDS, CONDITION, INCOMPLETE, FALSE, UNCHECKED)  # the closed vocabulary

Ruling = tuple[str, str]  # a verdict, and the evidence for it in one sentence
BOOK: dict[str, "Claim"] = {}  # every claim by its id; `claim` writes into it


@dataclass(frozen=True)
class Finding:
    """What one run of a claim found: the claim's id, a word of `VERDICTS`, one sentence."""

    claim: str
    verdict: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.claim}: {self.verdict}. {self.evidence}"


@dataclass(frozen=True)
class Claim:
    """One sentence that can be run.

    Args:
        id: G01 to G95 for what the guide says, D01 to D27 for what it leaves out: then the
            sentence is the belief that its reader is left with.
        chinese: the guide's own words; empty where it says nothing.
        english: our translation.
        where: the part of the guide in which it stands.
        expected: the verdict that was measured; a test compares.
        run: runs the claim here and now. Its arguments are what the claim hinges on.
    """

    id: str
    chinese: str
    english: str
    where: str
    expected: str
    run: Callable[..., Finding]

    def __str__(self) -> str:
        quote = f" “{self.chinese}”" if self.chinese else ""
        return f"{self.id}, {self.where}:{quote} {self.english}"


def claim(id: str, *, chinese: str = "", english: str, where: str = "not in the guide",
          verdict: str) -> Callable[[Callable[..., Ruling]], Callable[..., Finding]]:  # fmt: skip
    """Enter a function that runs a claim and returns (verdict, evidence) into the book.

    Raises:
        ValueError: the id is taken, or the verdict is no word of `VERDICTS`.
    """
    if id in BOOK:
        raise ValueError(f"claim {id}: expected an id that is free; {BOOK[id].run} has it")
    _check(id, verdict)

    def enter(function: Callable[..., Ruling]) -> Callable[..., Finding]:
        @wraps(function)
        def run(*args, **changed) -> Finding:
            word, evidence = function(*args, **changed)
            _check(id, word)
            return Finding(id, word, readable(evidence))

        BOOK[id] = Claim(id, chinese, english, where, verdict, run)
        return run

    return enter


def readable(evidence: str) -> str:
    """A sentence with NaN and Inf as words, 1e8 and 0 in place of 1e+08 and 0e+00."""
    for word, plain in ((r"\bnan\b", "NaN"), (r"\binf\b", "Inf"), (r"\b0e\+00\b", "0")):
        evidence = re.sub(word, plain, evidence)
    return re.sub(r"(?<=\d)e([+-])0*(\d+)\b", lambda m: f"e{m[1].strip('+')}{m[2]}", evidence)


def truth(as_written: bool, sometimes: bool = False) -> str:
    """The verdict on a statement: true as it is written, true in some of the cases, or false."""
    return HOLDS if as_written else CONDITION if sometimes else FALSE


def protection(stops: bool, leaks: bool) -> str:
    """The verdict on a guard: does it stop its own fault, and does another get through?"""
    return FALSE if not stops else INCOMPLETE if leaks else HOLDS


def _check(id: str, verdict: str) -> None:
    if verdict not in VERDICTS:
        raise ValueError(f"claim {id}: expected a verdict of {VERDICTS}; got {verdict!r}")
