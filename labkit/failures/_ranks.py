"""Two processes that train together, kept running between two readings."""

import atexit
import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

from labkit.probes.report import Report

ROOT = Path(__file__).resolve().parents[2]
AGAIN = 8  # times as long, where a rank was slow and not away

Guard = Callable[[bool, Callable[[float], float]], bool]


class Late(RuntimeError):
    """A vote to which not every rank came."""


@dataclass(frozen=True)
class Story:
    """How the training of one rank went."""

    losses: list[float]
    done: list[int]  # steps that were taken
    bad: int  # parameters that are not finite
    late: str  # what gloo said when nobody came
    entered: dict[str, int]  # how often it went to meet the other, for votes and for means
    report: Report | None  # of rank 0


class Ranks:
    """Rank 0 and rank 1, each a process; they talk to each other by gloo."""

    def __init__(self) -> None:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "labkit.failures._rank", str(rank)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            )
            for rank in (0, 1)
        ]
        atexit.register(self.close)

    def close(self) -> None:
        """End both; they end by themselves as well when this process does."""
        for process in self.processes:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.kill()
            process.wait()
            process.stdout.close()

    def train(self, guard: Guard, accident: str, wait: float) -> tuple[Story, Story]:
        """Three steps on both ranks, each asking the guard; an accident on rank 1.

        Args:
            guard: called on each rank for each step with "are my loss and gradients finite?" and
                a function that takes the minimum over both ranks; says whether to take the step.
            accident: what happens on rank 1.
            wait: seconds until a rank that waits gives up.

        Raises:
            RuntimeError: a process has died; the next call starts both anew.
            Whatever the guard raises.
        """
        stories = self._once(guard, accident, wait)
        well, sick = stories
        if (well.late or sick.late) and well.entered == sick.entered:
            return self._once(guard, accident, AGAIN * wait)  # nobody was away: a busy machine
        return stories

    def _once(self, guard: Guard, accident: str, wait: float) -> tuple[Story, Story]:
        found: list[Any] = [None, None]
        with tempfile.TemporaryDirectory(prefix="labkit-") as folder:
            order = accident, f"{folder}/meet", wait
            threads = [
                Thread(target=self._talk, args=(rank, guard, order, found)) for rank in (0, 1)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        for story in found:
            if isinstance(story, EOFError | BrokenPipeError):
                both.cache_clear()
                self.close()
                raise RuntimeError("a rank has died in the middle of its training") from story
            if isinstance(story, BaseException):
                raise story
        return tuple(found)

    def _talk(self, rank: int, guard: Guard, order: tuple, found: list) -> None:
        try:
            found[rank] = self._conversation(rank, guard, order)
        except BaseException as error:
            found[rank] = error

    def _conversation(self, rank: int, guard: Guard, order: tuple) -> Story:
        """Answer what one rank asks until its training has ended."""
        self._tell(rank, *order)
        failed: BaseException | None = None
        here = [rank]  # who votes; nobody once the training has ended

        def minimum(x: float) -> float:
            return min(self._vote(each, x) for each in here) if here else x

        while (message := self._hear(rank))[0] == "ask":
            try:
                self._tell(rank, "go", bool(guard(message[1], minimum)))
            except Late as late:
                self._tell(rank, "stop", str(late))
            except (EOFError, BrokenPipeError):
                raise
            except BaseException as error:
                failed = error
                self._tell(rank, "stop", "the guard stopped")
        here.clear()
        if failed is not None:
            raise failed
        return Story(*message[1:])

    def _vote(self, rank: int, x: float) -> float:
        self._tell(rank, "vote", float(x))
        word, value = self._hear(rank)
        if word == "late":
            raise Late(value)
        return value

    def _tell(self, rank: int, *message: Any) -> None:
        pickle.dump(message, self.processes[rank].stdin)
        self.processes[rank].stdin.flush()

    def _hear(self, rank: int) -> tuple:
        return pickle.load(self.processes[rank].stdout)


@cache
def both() -> Ranks:
    """The two ranks of this process; started once, they end with it."""
    ranks = Ranks()
    for rank in (0, 1):
        ranks._hear(rank)  # "ready"
    return ranks
