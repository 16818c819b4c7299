"""From news to the record: what one event changes in the entry of one failure."""

import warnings
from datetime import date
from pathlib import Path
from typing import Any

from labkit.record.place import place
from labkit.record.store import Book, NotOurs, change

Entry = dict[str, Any]
_told: set[tuple[Path, str]] = set()  # what was already said in this process
_seen: set[tuple[Path, str, str]] = set()  # verdicts of this process: a slider moves a lot


def listen(what: str, failure: str, facts: dict[str, Any]) -> None:
    """Record one event, if there is a record. Never stops the learner's work."""
    path = place()
    if path is None or not matters(what, facts):
        return
    mark = (path, failure, facts.get("verdict", ""))
    if what == "turned" and mark in _seen and path.exists():
        return
    try:
        message = change(path, lambda book: noted(book, what, failure, facts))
        _seen.add(mark)
    except (NotOurs, OSError) as error:
        message = f"nothing is recorded: {error}"
    if message and (path, message) not in _told:
        _told.add((path, message))
        warnings.warn(f"the learner's record: {message}", stacklevel=2)


def matters(what: str, facts: dict[str, Any]) -> bool:
    """Is this an act of the learner's? A healthy turn and an empty exercise are none."""
    if what == "turned":
        return facts["verdict"] != "healthy"
    return facts.get("written", True)


def noted(book: Book, what: str, failure: str, facts: dict[str, Any]) -> bool:
    """Write an event into a book; true if it changed anything."""
    entry = book["failures"].setdefault(failure, {})
    before = repr(entry)
    EVENTS[what](entry, **facts)
    return repr(entry) != before


def _turned(entry: Entry, verdict: str) -> None:
    seen = entry.setdefault("broken", [])
    if verdict not in seen:
        seen.append(verdict)


def _checked(entry: Entry, passed: bool, written: bool = True) -> None:
    if entry.get("repaired"):
        return
    entry["tries"] = entry.get("tries", 0) + 1
    if passed:
        entry["repaired"] = date.today().isoformat()


def _predicted(entry: Entry, choice: str, right: bool | None) -> None:
    """The first prediction counts: the second is made by one who has seen."""
    if "predicted" not in entry:
        entry |= {"predicted": choice, "right": right}


def _hinted(entry: Entry, number: int) -> None:
    if not entry.get("repaired"):
        entry["hints"] = max(entry.get("hints", 0), number)


def _solved(entry: Entry, seed: int, score: int, line: str) -> None:
    cases = entry.setdefault("cases", {})
    if score > cases.get(str(seed), {"score": -1})["score"]:
        cases[str(seed)] = {"score": score, "line": line, "on": date.today().isoformat()}


EVENTS = {
    "turned": _turned,
    "checked": _checked,
    "predicted": _predicted,
    "hinted": _hinted,
    "solved": _solved,
}
