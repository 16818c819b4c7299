"""Text that stays folded until the learner opens it."""

import html
from dataclasses import dataclass


@dataclass(frozen=True)
class Fold:
    """A summary line with something behind it: code, or a few lines of words.

    In a notebook it is a closed `<details>` element; in a terminal ``print(fold)`` opens it.
    """

    summary: str
    text: str

    def __repr__(self) -> str:
        return f"{self.summary} (folded; print it to see it)"

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        body = html.escape(self.text.rstrip())
        return f"<details><summary>{html.escape(self.summary)}</summary><pre>{body}</pre></details>"


def answer(bench) -> Fold:
    """The repaired form of a bench's failure, folded: the library's own source, no second copy.

    Args:
        bench: a `labkit.bench.Bench`.
    """
    failure = bench.failure
    form = getattr(failure.CASES["repaired"], failure.FORM_KNOB)
    return Fold("The library's answer", bench.source(form))
