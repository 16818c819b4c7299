"""The closed vocabulary of health that tracer, benches, claims and pictures share."""

from enum import StrEnum


class Verdict(StrEnum):
    """One word for the state of a training step, ordered from well to worst.

    ``healthy``      every value finite, every gradient alive
    ``untrained``    every value finite, but no backward ran or the model took no part
    ``wrong``        finite, but far from the float64 truth
    ``frozen``       gradients alive, yet an update changes nothing
    ``vanishing``    gradients alive, but too small to move anything
    ``exploding``    finite, but growing towards overflow
    ``dead``         a gradient that is exactly zero
    ``severed``      no graph leads from the loss to a parameter
    ``inf``          an infinity reached loss, gradient, parameter or state
    ``nan``          a NaN reached loss, gradient, parameter or state
    ``memory``       more memory than the plan allows
    ``deadlock``     processes wait for each other
    ``lost``         a checkpoint that cannot bring the run back
    """

    HEALTHY = "healthy"
    UNTRAINED = "untrained"
    WRONG = "wrong"
    FROZEN = "frozen"
    VANISHING = "vanishing"
    EXPLODING = "exploding"
    DEAD = "dead"
    SEVERED = "severed"
    INF = "inf"
    NAN = "nan"
    MEMORY = "memory"
    DEADLOCK = "deadlock"
    LOST = "lost"

    @property
    def rank(self) -> int:
        """Position in the order above; 0 is healthy."""
        return list(Verdict).index(self)


def worst(verdicts) -> Verdict:
    """The gravest of some verdicts; healthy if there are none."""
    return max(verdicts, key=lambda verdict: Verdict(verdict).rank, default=Verdict.HEALTHY)
