"""Terms that were meant for a loss: computed, perhaps logged, and never part of one."""

from math import isfinite

from labkit.probes.events import Event
from labkit.probes.finding import Finding
from labkit.probes.flow import Flow
from labkit.probes.verdict import Verdict

_EXITS = {"_local_scalar_dense": "item", "numpy": "numpy", "tolist": "tolist"}


def unjoined(session, flow: Flow, leaf: int) -> Finding | None:
    """A term whose number was added where the term itself was meant, or that nobody added.

    Only for what an optimizer holds and steps, beside a loss that does run backward.
    """
    if leaf not in session.training.members() or not session.training.moves or not flow.losses:
        return None
    below = flow.below(leaf)
    found = _as_number(flow, below) or _forgotten(flow, below)
    if found is not None:
        found.leaves = {leaf}
    return found


def _as_number(flow: Flow, below: set[int]) -> Finding | None:
    """The term left the graph as a number, and one that is made of it enters the loss."""
    exits = [e for e in map(flow.events.__getitem__, sorted(below)) if e.cut and e.name in _EXITS]
    if not exits:
        return None
    changing = {event.index for event in _changing(flow)}
    events = map(flow.events.__getitem__, flow.above)
    numbers = [event for event in events if event.phase == "forward" and event.scalars]
    for event in exits:
        after = (o for o in numbers if o.index > event.index and o.step == event.step)
        if any(o.index in changing or _made_of(o, event) for o in after):
            remark = "a Python number carries no gradient back"
            op = _EXITS[event.name]
            return Finding(Verdict.SEVERED, event, [event], remark, op=op, at=event.index)
    return None


def _made_of(event: Event, item: Event) -> bool:
    """Is a number that this op takes the item's value times, plus or rounded to a short decimal?

    A value that is a short decimal itself tells nothing: it and any weight are made of each other.
    """
    value = item.value
    if not isinstance(value, float) or not isfinite(value) or _short(value):
        return False
    for number in event.scalars:
        if _short(number / value) or _short(number - value):
            return True
        if number != round(number, 2) and number in {round(value, d) for d in range(3, 7)}:
            return True
    return False


def _short(number: float) -> bool:
    return isfinite(number) and abs(number - round(number, 4)) <= 1e-9 * abs(number)


def _changing(flow: Flow) -> list[Event]:
    """Ops on the way to a loss that take another Python number in every step."""
    lines: dict[tuple, list[Event]] = {}
    for index in flow.above:
        event = flow.events[index]
        if event.phase == "forward" and event.scalars:
            lines.setdefault((event.code, event.line, event.name), []).append(event)
    return [
        event
        for group in lines.values()
        if len({event.scalars for event in group}) == len({event.step for event in group}) > 1
        for event in group
    ]


def _forgotten(flow: Flow, below: set[int]) -> Finding | None:
    """A loss by its own name, with a graph, that enters no loss that ran backward."""
    for index in sorted(below):
        event = flow.events[index]
        if not _is_loss(event) or index in flow.above or flow.after(index) & flow.above:
            continue
        remark = "it enters no loss from which a backward ran: it was computed, and not added"
        op = event.name.removesuffix("_forward")
        return Finding(Verdict.SEVERED, event, [event], remark, op=op, at=index)
    return None


def _is_loss(event: Event) -> bool:
    named = "loss" in event.name or event.name.startswith(("binary_cross_entropy", "kl_div"))
    return named and event.phase == "forward" and event.live and event.graph and not event.cut
