"""One JSON file: read with care, written whole or not at all, kept aside if it is damaged."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

VERSION = 1
PATIENCE = 2.0  # seconds to wait for another notebook that is writing
STALE = 10.0  # seconds after which a lock is nobody's: a write takes milliseconds

Book = dict[str, Any]  # {"version": 1, "failures": {name: entry}}


class NotOurs(Exception):
    """The file is there, and this lab cannot or must not change it."""


def empty() -> Book:
    """A record of nothing."""
    return {"version": VERSION, "failures": {}}


def read(path: Path) -> Book:
    """What is recorded; an empty book if there is no file.

    Raises:
        ValueError: the file is damaged.
        NotOurs: a newer lab has written it.
    """
    try:
        book = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return empty()
    if not isinstance(book, dict) or not isinstance(book.get("version"), int):
        raise ValueError("expected an object with a version")
    if book["version"] > VERSION:
        raise NotOurs(
            f"{path.name}: version {book['version']}, from a newer lab; this one writes version "
            f"{VERSION}. It stays as it is. Update the lab, or give it another file: "
            "LABKIT_RECORD=other.json"
        )
    entries = book.get("failures")
    if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
        raise ValueError("expected the failures by name")
    return book


def write(path: Path, book: Book) -> None:
    """Replace the file in one go: a reader sees the old one or the new one, never a part."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            json.dump(book, file, indent=1, sort_keys=True, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def keep_aside(path: Path) -> Path:
    """Give a damaged file another name, a free one, and return it."""
    numbers = range(1, 1000)
    names = (path.with_name(f"{path.stem}.damaged-{i}{path.suffix}") for i in numbers)
    aside = next(name for name in names if not name.exists())
    path.rename(aside)
    return aside


def change(path: Path, edit: Callable[[Book], bool]) -> str:
    """Read, edit and write under a lock, so that two notebooks lose nothing.

    Args:
        edit: changes the book in place and returns whether anything changed.

    Returns:
        A message for the learner if the file was damaged, else "".

    Raises:
        NotOurs, OSError: nothing was changed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        book, message = _opened(path)
        if edit(book):
            write(path, book)
    return message


def _opened(path: Path) -> tuple[Book, str]:
    try:
        return read(path), ""
    except (ValueError, UnicodeDecodeError) as error:
        aside = keep_aside(path)
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return empty(), (
            f"{path.name} could not be read ({reason}). It is kept as {aside.name}, nothing of it "
            "is lost, and a new record begins."
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = path.with_name(f".{path.name}.lock")
    until = time.monotonic() + PATIENCE
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            if _age(lock) > STALE:
                lock.unlink(missing_ok=True)
            elif time.monotonic() > until:
                raise NotOurs(f"{path.name}: another notebook is writing it") from None
            else:
                time.sleep(0.01)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _age(lock: Path) -> float:
    try:
        return time.time() - lock.stat().st_mtime
    except FileNotFoundError:
        return 0.0
