"""Run the program, or the program with one line changed, and keep what it prints."""

import hashlib
import linecache
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

FILE = "training.py"  # what the learner sees; there is no such file
COLUMNS = ("loss", "fit", "crowd", "norm")


@lru_cache(maxsize=1)
def healthy_text() -> str:
    """The program without a fault, without the words on top."""
    whole = Path(__file__).with_name("program.py").read_text(encoding="utf-8")
    return whole[whole.index("import torch") :]


def swapped(text: str, line: str, new: str) -> str:
    """The text with one line replaced; its indentation stays.

    Raises:
        ValueError: the line does not stand there exactly once.
    """
    if (count := sum(row.strip() == line for row in text.splitlines())) != 1:
        raise ValueError(f"line: expected it once in the program; it stands there {count} times")
    rows = [row.replace(line, new) if row.strip() == line else row for row in text.splitlines()]
    return "\n".join(rows) + "\n"


def number_of(text: str, line: str) -> int:
    """Where a line stands, counted from 1."""
    return 1 + [row.strip() for row in text.splitlines()].index(line)


@dataclass
class Course:
    """One run: what each step printed, and everything that is left at its end."""

    rows: list[dict[str, float]] = field(default_factory=list)
    stopped: str = ""  # what it raised
    net: Any = None
    optimizer: Any = None

    @property
    def losses(self) -> list[float]:
        return [row["loss"] for row in self.rows]

    def log(self, every: int = 8) -> str:
        """What the training prints."""
        chosen = [*range(0, len(self.rows), every), len(self.rows) - 1] if self.rows else []
        head = "step" + "".join(f"{name:>11}" for name in COLUMNS)
        lines = [f"{i:4}" + "".join(f"{_told(self.rows[i][n]):>11}" for n in COLUMNS)
                 for i in dict.fromkeys(chosen)]  # fmt: skip
        return "\n".join([head, *lines, *([self.stopped] if self.stopped else [])])


def loaded(text: str) -> SimpleNamespace:
    """The functions of a program; a traceback or a trace can show its lines."""
    name = f"whodunit/{hashlib.sha256(text.encode()).hexdigest()[:12]}/{FILE}"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    names: dict[str, Any] = {"__name__": "training"}
    exec(compile(text, name, "exec"), names)
    return SimpleNamespace(**names)


def steps(program: SimpleNamespace, count: int) -> Iterator[tuple[Any, Any, Any, dict]]:
    """Net, optimizer, batch and printed values of each step, as it is done."""
    with torch.random.fork_rng(devices=[]):
        net, optimizer, batches = program.start()
        for number in range(count):
            batch = batches[number % len(batches)]
            yield net, optimizer, batch, program.step(net, optimizer, batch)


def run(text: str, count: int | None = None) -> Course:
    """Train for some steps; what is raised ends the run and is kept in words."""
    course = Course()
    try:
        program = loaded(text)
        for net, optimizer, _, printed in steps(program, count or program.STEPS):
            course.net, course.optimizer = net, optimizer
            course.rows.append({n: float(torch.as_tensor(printed[n]).detach()) for n in COLUMNS})
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        course.stopped = f"{type(error).__name__}: {first[:120]}"
    return course


@lru_cache(maxsize=64)
def kept(text: str) -> Course:
    """The same, once in a process; do not change what it returns."""
    return run(text)


def paused(text: str, before: int) -> tuple[SimpleNamespace, Any, Any, Any]:
    """The program stopped before a step: its functions, net, optimizer and the next batch."""
    program = loaded(text)
    with torch.random.fork_rng(devices=[]):
        net, optimizer, batches = program.start()
        for number in range(before):
            program.step(net, optimizer, batches[number % len(batches)])
    return program, net, optimizer, batches[before % len(batches)]


def _told(value: float) -> str:
    """Two decimals: the third differs between processors after some steps of training."""
    if not math.isfinite(value) or abs(value) >= 1000:
        return f"{value:.2g}"
    return f"{round(value, 2) + 0.0:.2f}"  # no minus in front of a zero
