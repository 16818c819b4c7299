"""Leaves that are made anew in each step (``w = w - lr * w.grad``): one parameter to the reader."""

from torch import Tensor

from labkit.probes.events import Event


def unite(session) -> None:
    """Count a leaf that takes over another one's name in a later step as that one.

    A leaf that an optimizer holds and one that it does not hold are never the same: there the
    new one is what went wrong.
    """
    heirs = _heirs(session)
    if not heirs:
        return
    for event in session.tape.events:
        event.leaf = heirs.get(id(event.leaf), event.leaf)
        if event.mutates:
            event.mutates = tuple(id(heirs[who]) if who in heirs else who for who in event.mutates)
    for note in (*session.gradients.arrivals, *session.training.moves):
        note.leaf = heirs.get(id(note.leaf), note.leaf)
    for heir in heirs:
        session.tape.leaves.pop(heir, None)


def _heirs(session) -> dict[int, Tensor]:
    """Id of each leaf that stands for an earlier one, and that one."""
    members, heirs = session.training.members(), {}
    heads: dict[tuple, Tensor] = {}
    seen: dict[int, tuple[Event, Event]] = {}  # first and last reading of a leaf
    for event in session.tape.events:
        if event.phase == "source" and id(event.leaf) in session.tape.leaves:
            seen[id(event.leaf)] = seen.get(id(event.leaf), (event,))[0], event
    last: dict[tuple, int] = {}
    for who, (first, final) in seen.items():
        kind, name, _ = session.tape.names[who]
        key = name, first.code, who in members
        if kind == "guess" and name != "leaf":
            if key in heads and last[key] < first.step:
                heirs[who] = heads[key]
            else:
                heads[key] = first.leaf
            last[key] = final.step
    return heirs
