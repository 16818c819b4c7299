"""Numbers that overflowed because each step overshot the last: the rate is to blame, no op."""

import math

from labkit.probes.finding import Finding
from labkit.probes.flow import Flow
from labkit.probes.growth import DIVERGED, rate
from labkit.probes.verdict import Verdict

FACTOR = 2.0  # by which a loss that runs away grows in each step
LEAST = 3  # losses in a row that grow so
AT_ONCE = 1e8  # growth of which a single one tells enough


def outgrown(session, flow: Flow, finding: Finding) -> Finding:
    """The finding itself, or the optimizer's steps if the losses before it ran away.

    Args:
        session: what was traced.
        flow: its events as a graph.
        finding: a NaN or an infinity that did harm.
    """
    bad = flow.events[finding.at].step
    values: dict[int, float] = {}
    for root in session.calls.roots:
        if root.step < bad:
            values[root.step] = abs(root.value)
    grown = _grown([values[step] for step in sorted(values)])
    moves = session.training.moves
    least = LEAST if len(grown) != 2 or grown[1] < AT_ONCE * grown[0] else 2
    if not moves or len(grown) < least or grown[-1] < DIVERGED * max(grown[0], 1e-30):
        return finding
    last = max(values)
    word = "NaN" if finding.verdict is Verdict.NAN else "infinite"
    steps = f"in steps {last - len(grown) + 1} to {last}, and step {bad} is {word}"
    told = rate(flow, moves[0], grown, steps)
    told.verdict, told.path, told.at = finding.verdict, finding.path, finding.at
    told.leaves = {id(move.leaf) for move in moves}
    told.spoilt = dict.fromkeys(told.leaves, "exploding") | finding.spoilt
    return told


def _grown(losses: list[float]) -> list[float]:
    """The losses at the end that each are far above the one before."""
    start = len(losses) - 1
    while start > 0 and math.isfinite(losses[start]) and losses[start] > FACTOR * losses[start - 1]:
        start -= 1
    return losses[start:] if losses and math.isfinite(losses[-1]) else []
