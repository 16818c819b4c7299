"""The board: every tensor of a training run, and how much of it was bad after each operation.

Columns are training steps, rows the operations of one step from top to bottom. A bar is the bad
share of a tensor. What comes after the present moment is left blank.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from labkit.board import Board, Square
from labkit.draw.maps import ring
from labkit.draw.scene import SMALL, Box, Item, Scene, Words, line, width_of
from labkit.draw.theme import STATES

LABEL, COLUMN, ROW = 176.0, 186.0, 18.0  # width of the names, of a step, height of an operation
MARK, BAR, WIDE, TOLD = 10.0, 24.0, 62.0, 94.0  # places in a square; the third is a width
TOP, GAP = 42.0, 8.0  # height of the first row, space between phases
LEAST = 2.0  # a bar of one bad number is at least this wide


def board_scene(board: Board, here: bool = True) -> Scene:
    """The picture of a board.

    Args:
        here: also a ring around the present moment; the page draws its own, which moves.
    """
    heights = heights_of(board)
    bottom = heights[-1] + ROW
    items: list[Item] = [*_heads(board), *_names(board, heights)]
    for column in range(len(board.columns)):
        for row, y in enumerate(heights):
            if board.seen(column, row):
                items += _square(board.columns[column][row], _left(column), y)
            else:
                items.append(Box(_left(column) + BAR, y - 5, WIDE, 10, "tint", 2))
    items += _keep(board, bottom + 8)
    if here:
        items += ring(*spot(board, *board.here))
    return Scene(_left(len(board.columns)), bottom + 20, tuple(items), board_words(board))


def heights_of(board: Board) -> list[float]:
    """The middle of every row."""
    phases = list(dict.fromkeys(board.phases))
    return [
        TOP + ROW * (i + 0.5) + GAP * phases.index(phase) for i, phase in enumerate(board.phases)
    ]


def spot(board: Board, column: int, row: int) -> tuple[float, float]:
    """Where the ring stands."""
    return _left(column) + MARK, heights_of(board)[row]


def squares(board: Board) -> list[dict[str, Any]]:
    """The squares for a page: where each stands, what it sets, and what it says."""
    step, op = board.knobs
    found = []
    for column, moments in enumerate(board.columns):
        for row, square in enumerate(moments):
            x, y = spot(board, column, row)
            said = square_words(square) if board.seen(column, row) else "not yet"
            name = f"step {column}, {board.rows[row]}"
            wanted = {step: column, op: row}
            place = {"x": x, "y": y, "column": column, "row": row}
            found.append({**place, "set": wanted, "words": f"{name}: {said}"})
    return found


def board_words(board: Board) -> str:
    """The board in words: the present moment, then what is bad in each step so far."""
    column, row = board.here
    lines = [f"{board.title}, seen at step {column}, {board.rows[row]}."]
    for step, moments in enumerate(board.columns[: column + 1]):
        shown = [i for i in range(len(moments)) if board.seen(step, i)]
        bad = [f"{board.rows[i]} {square_words(moments[i])}" for i in shown if moments[i].bad]
        lines.append(f"step {step}: {', '.join(bad) or 'nothing bad'}")
    return "\n".join(lines)


def square_words(square: Square) -> str:
    """One square: ``128 of 2048 NaN, 1 cell``."""
    if not square.size:
        return "not computed"
    if not square.bad:
        return f"all {square.size} finite"
    word = "NaN" if square.word == "nan" else "Inf"
    cells = f", {square.cells} cell{'s' * (square.cells > 1)}" if square.cells else ""
    return f"{square.bad} of {square.size} {word}{cells}"


def _left(column: int) -> float:
    return LABEL + COLUMN * column


def _heads(board: Board) -> Iterator[Item]:
    yield Words(0, 8, board.title, bold=True)
    for column in range(len(board.columns)):
        yield Words(_left(column) + BAR, TOP - 10, f"{board.knobs[0]} {column}", bold=True)


def _names(board: Board, heights: list[float]) -> Iterator[Item]:
    """The name of every row, and of every phase beside its rows."""
    for name, y in zip(board.rows, heights, strict=True):
        yield Words(LABEL - 12, y, name, "ink", "end")
    for phase, run in groupby(range(len(heights)), key=lambda row: board.phases[row]):
        rows = list(run)
        top, bottom = heights[rows[0]] - ROW / 2, heights[rows[-1]] + ROW / 2
        yield Words(0, heights[rows[0]], phase, "muted", size=SMALL)
        x = width_of("backward", SMALL) + 8
        yield line("axis", (x, top + 2), (x, bottom - 2))


def _square(square: Square, left: float, y: float) -> Iterator[Item]:
    if not square.size:
        yield Words(left + MARK, y, "·", "muted", "middle")
        return
    yield Box(left + BAR, y - 5, WIDE, 10, "ok", 2)
    if not square.bad:
        yield Words(left + MARK, y, STATES["healthy"].mark, "mark ok", "middle")
        return
    share = max(LEAST, WIDE * square.bad / square.size)
    role = square.word
    yield Box(left + MARK - 8, y - 8, 16, 16, role, 3)
    yield Words(left + MARK, y, STATES[role].mark, f"on {role}", "middle")
    yield Box(left + BAR, y - 5, share, 10, f"mark {role}", 2 if share > 4 else 0)
    whole = square.bad == square.size
    text = f"all {square.size}" if whole else f"{square.bad} of {square.size}"
    yield Words(left + TOLD, y, text, "ink", size=SMALL)


def _keep(board: Board, y: float) -> Iterator[Item]:
    """Below each step that has ended, whether what it leaves could be gone back to."""
    yield Words(LABEL - 12, y, "worth keeping", "ink", "end", bold=True)
    for column, well in enumerate(board.safe):
        if board.seen(column, len(board.rows) - 1):
            text = "✓ a copy would save the run" if well else "✕ a copy is poisoned"
            yield Words(_left(column) + BAR, y, text, f"mark {'ok' if well else 'nan'}", size=SMALL)
