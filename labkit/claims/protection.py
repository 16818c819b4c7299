"""What each of the guide's protection points stops, and what it lets through.

    from labkit.claims import protection
    protection.points()          # plain data: the points, and what was measured of each
    protection.measured()          # puts every fault in front of every point now: one row each

A point is a guard that the guide sets. Faults are put in front of it, one at a time; each is
stopped or gets through. Beside it stands what becomes of a gradient where the guard acts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

from labkit.claims.entry import readable
from labkit.claims.table import Table

Outcome = tuple[dict[str, bool], str]  # each fault: stopped or not; the gradient, in a sentence


@dataclass(frozen=True)
class Point:
    """One protection point.

    Args:
        guard: what it does, in our words.
        chinese: the guide's own words.
        where: the guide's numbers of it.
        claims: the ids of the claims that say more.
        stops, lets_through: the faults, as measured; a test compares.
        run: puts each fault in front of the guard.
    """

    guard: str
    chinese: str
    where: str
    claims: tuple[str, ...]
    stops: tuple[str, ...]
    lets_through: tuple[str, ...]
    run: Callable[..., "Row"]


@dataclass(frozen=True)
class Row:
    """What one run of a point found."""

    guard: str
    stops: tuple[str, ...]
    lets_through: tuple[str, ...]
    gradient: str  # where the guard acts


LIST: list[Point] = []  # every point; `point` writes into it


def point(
    guard: str,
    *,
    chinese: str,
    where: str,
    claims: tuple[str, ...],
    stops: tuple[str, ...],
    lets_through: tuple[str, ...],
) -> Callable[[Callable[..., Outcome]], Callable[..., Row]]:
    """Enter a function that tests a guard into the list."""

    def enter(function: Callable[..., Outcome]) -> Callable[..., Row]:
        @wraps(function)
        def run(*args, **changed) -> Row:
            faults, gradient = function(*args, **changed)
            stopped = tuple(fault for fault, held in faults.items() if held)
            return Row(
                guard, stopped, tuple(f for f in faults if f not in stopped), readable(gradient)
            )

        LIST.append(Point(guard, chinese, where, claims, stops, lets_through, run))
        return run

    return enter


def points() -> tuple[Point, ...]:
    """The points, in the guide's order: those of the VAE, of the operator, of the training."""
    return tuple(sorted(LIST, key=lambda entry: entry.where))


def measured() -> Table:
    """Run the points; one `Row` each, in the order of `points`."""
    return Table(entry.run() for entry in points())
