"""What became of each parameter."""

import math

from labkit.probes.report import Fate
from labkit.probes.stats import Histogram


def fates(session) -> tuple[list[Fate], dict[str, int]]:
    """The fate of every parameter to report, and the id behind each name."""
    named = reported(session)
    found = [_fate(session, name, leaf) for name, leaf in named.items()]
    return found, {name: id(leaf) for name, leaf in named.items()}


def reported(session) -> dict:
    """Names and tensors: the models' parameters, or every trainable leaf that was used."""
    tape = session.tape
    found = {}
    for prefix, root in tape.roots:
        if not session.models or root in session.models:
            for name, leaf in root.named_parameters(prefix=prefix):
                if leaf.requires_grad or _was_trainable(session, leaf):
                    found[name] = leaf
    known = {id(leaf) for leaf in found.values()}
    for index in tape.leaves.values():
        event = tape.events[index]
        if id(event.leaf) not in known and (not session.models or _inside(session, event)):
            name = event.name if event.name not in found else f"{event.name}#{index}"
            found[name] = event.leaf
            known.add(id(event.leaf))
    return found


def _was_trainable(session, leaf) -> bool:
    return any(note.tensor == id(leaf) and note.value is not None for note in session.calls.notes)


def _inside(session, event) -> bool:
    """Was this leaf first used while one of the user's models ran?"""
    return any(root is part for root in session.models for part in event.around)


def _fate(session, name: str, leaf) -> Fate:
    arrivals = [a for a in session.gradients.arrivals if a.leaf is leaf]
    shape = tuple(leaf.shape)
    if not arrivals:
        return Fate(name, shape, "none", None)
    last = arrivals[-1]
    return Fate(name, shape, _word(arrivals), _histogram(last), last.norm)


def _histogram(arrival) -> Histogram | None:
    return arrival.histogram


def _word(arrivals) -> str:
    if any(a.stats.nan for a in arrivals):
        return "nan"
    if any(a.stats.bad for a in arrivals):
        return "inf"
    return "zero" if all(a.stats.large == 0 for a in arrivals) else "ok"


def norm_of(arrivals) -> float:
    return arrivals[-1].norm if arrivals else math.nan
