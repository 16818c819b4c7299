"""A board: what happened to every value of a training run, step by step, as plain data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Square:
    """How many numbers of one tensor were bad after one moment."""

    size: int  # 0: it was not computed
    bad: int = 0  # NaN or infinite
    word: str = "ok"  # ok, nan, inf
    cells: int = 0  # biological cells that have a bad number, where the tensor has cells


@dataclass(frozen=True)
class Board:
    """Squares over training steps (columns) and the moments of one step (rows).

    ``knobs`` names the knobs of the bench for column and row; ``here`` is the present moment.
    What comes after it is not shown yet. ``safe`` says of each step whether the run that is
    left behind could go on: all that stays is finite.
    """

    title: str
    rows: tuple[str, ...]
    phases: tuple[str, ...]  # of each row: forward, backward, state
    squares: tuple[tuple[Square, ...], ...]  # [row][column]
    safe: tuple[bool, ...]  # one for each column
    here: tuple[int, int]  # column, row
    knobs: tuple[str, str] = ("step", "op")

    def seen(self, column: int, row: int) -> bool:
        """Whether a square lies at or before the present moment."""
        return (column, row) <= self.here
