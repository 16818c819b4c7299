"""The record as words: where the learner stands, and what to do next."""

import re
from dataclasses import dataclass
from typing import Any

from labkit.record.books import books, symptoms
from labkit.record.place import place
from labkit.record.store import NotOurs, read

NONE = """\
No record is kept here. In your own copies (`make lab` makes them, in my_lab/) this shows what you
have predicted, broken and repaired. The record is one file beside them. It is sent nowhere."""
SMALL = """\
a all an and any are as at be but by can do does else for from get gets go has have i in into is it
its me my never no not of on one only or s soon still that the then there to too was what when while
why will with"""  # words that tell nothing about a symptom


@dataclass(frozen=True)
class Standing:
    """Where the learner stands with one failure; each field is told in words."""

    name: str
    predicted: str  # -, right, wrong, or noted where the notebook has no key
    broken: str  # - or the verdicts that were seen
    repair: str  # not attempted, not yet (2 tries), repaired, solved (of cases)
    hints: int

    @property
    def state(self) -> str:
        """untouched, started, wrong or repaired."""
        if self.repair.startswith(("repaired", "solved")):
            return "repaired"
        if self.repair.startswith("not yet") or self.predicted == "wrong":
            return "wrong"
        return "untouched" if (self.predicted, self.broken) == ("-", "-") else "started"


def standing(name: str, entry: dict[str, Any]) -> Standing:
    """Tell one entry of the record in words: what was never tried is not wrong."""
    tries = entry.get("tries", 0)
    count = f"{tries} {'try' if tries == 1 else 'tries'}"
    repair = f"repaired, {count}" if entry.get("repaired") else f"not yet, {count}"
    solved = len(entry.get("cases", ()))
    if solved:
        tries, repair = solved, f"solved, {solved} {'case' if solved == 1 else 'cases'}"
    judged = {True: "right", False: "wrong", None: "noted"}
    return Standing(
        name,
        judged[entry.get("right")] if "predicted" in entry else "-",
        ", ".join(entry.get("broken", ())) or "-",
        repair if tries else "not attempted",
        entry.get("hints", 0),
    )


class Mine:
    """The learner's record, told when it is shown."""

    def __repr__(self) -> str:
        path = place()
        if path is None:
            return NONE
        try:
            entries = read(path)["failures"]
        except (NotOurs, OSError, ValueError) as error:
            return f"{path.name}: {error}"
        found = [standing(name, entries.get(name, {})) for name in books()]
        solved = entries.get("whodunit", {}).get("cases", {})
        return "\n".join([table(found), *_cases(solved), "", *next_up(found)])


def mine() -> Mine:
    """Your record: what you predicted, broke and repaired, and what to do next."""
    return Mine()


def table(found: list[Standing]) -> str:
    """A line for each notebook that was touched, and how many were not."""
    head = ("notebook", "prediction", "broken", "repair", "hints")
    touched = [s for s in found if s.state != "untouched"]
    rows = [(_book(s), s.predicted, s.broken, s.repair, str(s.hints)) for s in touched]
    wide = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(word.ljust(w) for word, w in zip(row, wide, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join([*lines, f"not attempted: {len(found) - len(touched)} of {len(found)}"])


def next_up(found: list[Standing], most: int = 3) -> list[str]:
    """What to do next: finish what was tried, then what was started, then the next gap."""
    wrong = [f"{_book(s)}: {_advice(s)}" for s in found if s.state == "wrong"]
    started = [f"{_book(s)}: you have seen it break; repair it" for s in found
               if s.state == "started"]  # fmt: skip
    gap = [f"{_book(s)}: not attempted yet" for s in found if s.state == "untouched"][:1]
    lines = [*wrong, *started, *gap][:most]
    return [f"next: {line}" for line in lines] or ["all repaired. Next: your own model."]


def suggest(symptom: str, most: int = 3) -> str:
    """Which notebooks fit what you see, best first.

    Args:
        symptom: in your own words, such as "one layer never moves".
        most: how many to name.
    """
    wanted = _words(symptom)
    scored = [(len(wanted & _words(text)), where, text) for text, where in symptoms()]
    best = sorted((row for row in scored if row[0]), key=lambda row: -row[0])[:most]
    if not best:
        return "nothing fits these words; trace one step: labkit.trace(step, model=model)"
    return "\n".join(f"{where}: {text}" for _, where, text in best)


def _advice(s: Standing) -> str:
    if s.repair.startswith("not yet"):
        return f"{s.repair}; ask hint({s.name!r})"
    return "you expected something else; look again at what broke, then repair it"


def _cases(solved: dict[str, dict]) -> list[str]:
    return [f"whodunit {case['line']}" for _, case in sorted(solved.items())]


def _book(s: Standing) -> str:
    return f"{books()[s.name]}_{s.name}"


def _words(text: str) -> set[str]:
    """Words that tell something, without their endings."""
    plain = re.findall(r"[a-z]+", text.lower())
    return {re.sub(r"(ing|ed|es|s|e)$", "", word) for word in plain if word not in SMALL.split()}
