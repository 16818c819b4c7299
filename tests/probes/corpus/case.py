"""What a corpus program is, and what is known to be true of it."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MARK = "# fault"


@dataclass
class Program:
    """One runnable training step, or several."""

    step: Callable[[], Any]
    model: Any = None
    optimizers: Any = ()
    steps: int = 1


@dataclass(frozen=True)
class Case:
    """A program and its ground truth. ``op == ()`` marks a healthy control."""

    name: str
    make: Callable[[bool], Program]
    group: str
    verdict: str
    op: tuple[str, ...]  # names that count as right, the backward node's included
    harmed: frozenset[str] | None  # None: not part of the truth
    source: str
    lines: frozenset[int]
    building: bool = False  # the tracer also covers the code that builds
    shadow: bool = False

    @property
    def healthy(self) -> bool:
        return self.verdict == "healthy"


@dataclass
class Corpus:
    cases: list[Case] = field(default_factory=list)

    def fault(self, group, verdict, op, harmed, source, **options):
        """Register `make(broken)`; the line marked ``# fault`` is the true culprit."""
        return lambda make: self._add(make, group, verdict, op, harmed, source, **options)

    def healthy(self, source, **options):
        """Register a control: it must stay silent in both forms."""
        return lambda make: self._add(make, "healthy", "healthy", "", "", source, **options)

    def _add(self, make, group, verdict, op, harmed, source, **options):
        text, start = inspect.getsourcelines(make)
        lines = frozenset(start + i for i, line in enumerate(text) if MARK in line)
        if (verdict == "healthy") == bool(lines):
            raise ValueError(f"{make.__name__}: a fault needs its marked line, a control none")
        ops, names = tuple(op.split()), None if harmed == "?" else frozenset(harmed.split())
        case = Case(make.__name__, make, group, verdict, ops, names, source, lines, **options)
        self.cases.append(case)
        return make
