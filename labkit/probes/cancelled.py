"""Gradients that reach one tensor on two ways and cancel there to the last bit (``x - x``)."""

from labkit.probes.events import Event
from labkit.probes.finding import Finding
from labkit.probes.flow import Flow, spread
from labkit.probes.verdict import Verdict


def cancelled(flow: Flow, arrivals: list[Event]) -> Finding | None:
    """The node whose gradients meet again and leave nothing, on the way to these arrivals."""
    node = _meeting(flow.events, arrivals)
    if node is None or node.forward is None:
        return None
    forward = flow.events[node.forward]
    remark = "what it sends back along its inputs cancels to the last bit"
    finding = Finding(Verdict.DEAD, forward, flow.way(forward.index, flow.above), remark)
    finding.op, finding.phase, finding.at = node.node, "backward", forward.index
    return finding


def _meeting(events: list[Event], arrivals: list[Event]) -> Event | None:
    """The last node that all the gradients of one such sum come from."""
    todo, seen = list(arrivals), set()
    while todo:
        event = todo.pop()
        sent = [parent for parent, stats in event.fed if stats.large > 0]
        if len(sent) > 1:
            shared = set.intersection(*(_upstream(events, parent) for parent in sent))
            return events[max(shared)] if shared else None
        fresh = [parent for parent, _ in event.fed if parent not in seen]
        seen.update(fresh)
        todo.extend(events[parent] for parent in fresh)
    return None


def _upstream(events: list[Event], start: int) -> set[int]:
    """A backward node and every node between it and the loss."""
    return spread([start], lambda index: (parent for parent, _ in events[index].fed))
