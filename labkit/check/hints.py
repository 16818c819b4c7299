"""A hint for each verdict. A failure that knows better has HINTS of its own, and a CHANGED.

A hint of a failure's own may be a function of the reading; "" is none.
"""

from types import ModuleType

from labkit.bench import Reading
from labkit.probes.verdict import Verdict

HINTS = {
    Verdict.NAN: "limit what goes into the operation named below. What it puts out is too late: "
    "a NaN that is replaced in the forward pass comes back in the backward pass.",
    Verdict.INF: "limit what goes into the operation named below. Its input was still finite; "
    "its output is not.",
    Verdict.SEVERED: "something cuts the graph, such as detach, .item(), .data, NumPy or no_grad. "
    "Keep one path from the input to the output that autograd can see.",
    Verdict.DEAD: "the values are fine, but a gradient is exactly zero. A clamp is flat outside "
    "its range, and so is a function that saturates. Change the value, let the gradient pass.",
    Verdict.VANISHING: "a gradient is alive, but too small to move anything. Your function is too "
    "flat there, or what it lets through is too large for the rest.",
    Verdict.EXPLODING: "finite, but growing towards overflow. Limit it further.",
    Verdict.WRONG: "finite, but far from float64. Look for a constant that is too large, or for "
    "the difference of two numbers that are nearly equal.",
}
STOPPED = "let it run to its end at every setting"
CHANGED = "what is healthy must come out as it went in. Act only where it is needed."


def hint_for(failure: ModuleType, reading: Reading, verdict: Verdict | None = None) -> str:
    """What a learner should think of next, after a reading that is not healthy.

    Args:
        failure: a module of `labkit.failures`.
        reading: what the learner's function did.
        verdict: in place of the reading's own.
    """
    verdict = verdict or reading.verdict
    own = getattr(failure, "HINTS", {}).get(verdict)
    return (own(reading) if callable(own) else own) or HINTS.get(verdict, str(reading))


def changed_hint(failure: ModuleType) -> str:
    """What to think of where the healthy run did not stay as it was."""
    return getattr(failure, "CHANGED", CHANGED)
