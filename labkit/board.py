"""A board: what became of every value of a training run, step by step, as plain data."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Square:
    """How many numbers of one tensor were bad after one moment."""

    size: int  # 0: it was not computed
    bad: int = 0  # NaN or infinite
    word: str = "ok"  # ok, nan, inf
    cells: int = 0  # biological cells that have a bad number, where the tensor has cells


Column = tuple[Square, ...]


@dataclass(frozen=True)
class Board:
    """Squares over the training steps of a run (columns) and the moments of each (rows).

    What comes after `here` was measured too, and a picture does not show it yet.
    """

    title: str
    rows: tuple[str, ...]
    phases: tuple[str, ...]  # of each row: forward, backward, state
    stays: tuple[int, ...]  # rows of what one step leaves to the next
    columns: tuple[Column, ...]
    here: tuple[int, int]  # column and row of the present moment
    knobs: tuple[str, str] = ("step", "op")  # of the bench, for column and row

    def seen(self, column: int, row: int) -> bool:
        """Whether a square lies at or before the present moment."""
        return (column, row) <= self.here

    @property
    def safe(self) -> tuple[bool, ...]:
        """Of each step, whether all that it leaves to the next one is finite."""
        return tuple(not any(column[row].bad for row in self.stays) for column in self.columns)

    @property
    def spread(self) -> "Spread":
        """How far the bad got in the whole run."""
        moments = list(self._moments())
        stays = [sum(column[row].bad for row in self.stays) for column in self.columns]
        size = sum(self.columns[-1][row].size for row in self.stays)
        born = next((i for i, (_, it) in enumerate(moments) if it.bad), None)
        half = next((i for i, bad in enumerate(stays) if bad and 2 * bad >= size), None)
        life = None if half is None else (half + 1) * len(self.rows) - 1 - born
        whole = (name for name, it in moments if it.size > 1 and it.bad == it.size)
        safe = [step for step, well in enumerate(self.safe) if well]
        return Spread(next(whole, ""), life, stays[-1], size, safe[-1] if safe else None)

    def _moments(self) -> Iterator[tuple[str, Square]]:
        for step, column in enumerate(self.columns):
            for name, square in zip(self.rows, column, strict=True):
                yield f"{name}, step {step}", square


@dataclass(frozen=True, repr=False)
class Spread:
    """How far bad numbers got in a whole run; ``str(spread)`` says it in four lines."""

    first_whole: str  # the first moment at which no number of a tensor was good
    half_life: int | None  # moments until half of what stays is bad; None: never
    bad: int  # numbers that are bad in the end, of all that stays
    size: int
    last_safe: int | None  # the last step after which all that stays is finite; None: none

    def __str__(self) -> str:
        half = "never" if self.half_life is None else f"{self.half_life} operations after the birth"
        safe = "none" if self.last_safe is None else f"the one after step {self.last_safe}"
        return (
            f"first tensor without a good number: {self.first_whole or 'none'}\n"
            f"half of what stays is bad: {half}\n"
            f"bad in the end: {self.bad} of {self.size} numbers that stay\n"
            f"last copy that would save the run: {safe}"
        )

    __repr__ = __str__
