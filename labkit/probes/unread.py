"""Results that were meant to land somewhere, and that nobody ever reads."""

from labkit.probes.events import Event
from labkit.probes.finding import Finding
from labkit.probes.flow import Flow
from labkit.probes.verdict import Verdict

_COPIES = {"index", "index_select", "gather", "masked_select", "take", "clone", "_to_copy"}


def unread(flow: Flow, leaf: int) -> Finding | None:
    """A write of something trainable into a copy that an index made: ``h[rows][:, 0] = x``."""
    for index in sorted(flow.below(leaf)):
        event = flow.events[index]
        if event.mutates and event.live and not flow.children.get(index) and _fresh(flow, event):
            remark = "it writes into a copy that nobody reads; assign with one index"
            finding = Finding(Verdict.SEVERED, event, [event], remark, at=index)
            finding.leaves = {leaf}
            return finding
    return None


def _fresh(flow: Flow, write: Event) -> bool:
    """Is what it writes to a view of a copy that was made for it alone?"""
    if not write.fed:
        return False
    event = flow.events[write.fed[0][0]]
    while event.tool is not None and (event.tool.moved or event.name in ("select", "slice")):
        if not event.fed or event.name == "clone":
            break
        event = flow.events[event.fed[0][0]]
    return event.name in _COPIES


def unbound(session, flow: Flow) -> Finding | None:
    """``p = p - lr * p.grad``: an update whose result is bound to a name, and to nothing else."""
    if session.training.moves:
        return None
    arrived = {a.event: id(a.leaf) for a in session.gradients.arrivals}
    lost = {e.index: leaf for e in flow.events if (leaf := _updated(flow, e, arrived)) is not None}
    steps: dict[int, set[int]] = {}
    for index, leaf in lost.items():
        steps.setdefault(leaf, set()).add(flow.events[index].step)
    if not any(len(which) > 1 for which in steps.values()):
        return None  # only a parameter that comes again is known to be the same
    first = flow.events[min(lost)]
    remark = "its result is bound to a name: the parameter itself never changes"
    finding = Finding(Verdict.FROZEN, first, [first], remark, at=first.index)
    finding.spoilt = dict.fromkeys(lost.values(), "not updated")
    return finding


def _updated(flow: Flow, event: Event, arrived: dict[int, int]) -> int | None:
    """The leaf whose new value this event computes from the old one and its gradient, in vain."""
    if event.name not in ("sub", "add") or event.graph or flow.children.get(event.index):
        return None
    read = {id(flow.events[p].leaf) for p in event.parents if flow.events[p].kind == "parameter"}
    steps = {q for p in event.parents for q in (p, *flow.events[p].parents)}
    mine = read & {arrived[index] for index in steps if index in arrived}
    return next((leaf for leaf in mine if not flow.writers.get(leaf)), None)
