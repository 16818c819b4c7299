"""A gradient that is exactly zero: the node where it died, unless it had to."""

from labkit.probes.events import Event
from labkit.probes.finding import Finding
from labkit.probes.flow import Flow
from labkit.probes.growth import cancels
from labkit.probes.verdict import Verdict

_PRODUCTS = {"mul", "mm", "bmm", "mv", "dot", "addmm", "addmv", "baddbmm", "addbmm"} | {
    *("convolution", "addcmul", "native_batch_norm", "native_layer_norm"),
}


def death(session, flow: Flow, leaf: int) -> tuple[Finding | None, str]:
    """Where the gradient of one parameter died in every traced step, or why it may."""
    arrivals = [a for a in session.gradients.arrivals if id(a.leaf) == leaf]
    if any(cancels(flow.events, flow.events[a.event]) for a in arrivals):
        return None, "its terms cancel by construction"
    roots = [root for a in arrivals for root in _roots(flow.events, flow.events[a.event])]
    if not roots:
        return None, "no gradient was asked of it"
    findings = []
    for root in roots:
        excuse = _excuse(session, flow, root)
        if excuse:
            return None, excuse
        findings.append(_finding(flow, root))
    return min(findings, key=lambda finding: finding.at), ""


def _roots(events: list[Event], start: Event) -> list[Event]:
    """Nodes with a gradient in and none out, upstream of a zero arrival."""
    todo, seen, roots = [start], set(), []
    while todo:
        event = todo.pop()
        for parent, sent in event.fed:
            if parent in seen or sent.large > 0:
                continue
            seen.add(parent)
            node = events[parent]
            if any(stats.large > 0 for stats in node.inputs):
                roots.append(node)
            else:
                todo.append(node)
    return roots


def _finding(flow: Flow, node: Event) -> Finding:
    """Blame the node; a product with zeros is the fault of what made the zeros."""
    forward = flow.events[node.forward]
    zero = _zeros(flow, forward)
    if zero is not None:
        forward, node = zero, _backward_of(flow, zero) or node
    remark = _words(forward)
    finding = Finding(Verdict.DEAD, forward, flow.way(forward.index, flow.above), remark)
    finding.op, finding.phase, finding.at = node.node, "backward", forward.index
    return finding


def _backward_of(flow: Flow, forward: Event) -> Event | None:
    nodes = (e for e in flow.events if e.phase == "backward" and e.forward == forward.index)
    return next(nodes, None)


def _zeros(flow: Flow, event: Event) -> Event | None:
    """The op that turned something into nothing but zeros, upstream of a product."""
    todo = [flow.events[p] for p in event.parents]
    while todo:
        event = todo.pop()
        if event.phase != "forward" or not event.outputs or event.outputs[0].word != "zero":
            continue
        looked = event.inputs if _multiplies(event) else event.inputs[:1]
        if not any(s.word == "zero" for s in looked):
            return event if event.tool and not event.tool.made and event.inputs else None
        todo.extend(flow.events[p] for p in event.parents)
    return None


def _excuse(session, flow: Flow, node: Event) -> str:
    forward = flow.events[node.forward]
    losses = [root.value for root in session.calls.roots if root.step == node.step]
    if losses and all(value == 0 for value in losses):
        return "the loss is zero already"
    if 0 in forward.scalars:
        return "multiplied by a constant zero"
    for parent in _origins(flow, forward) if _multiplies(forward) else ():
        if all(s.word == "zero" for s in parent.outputs):
            if parent.kind == "parameter" and parent.gradient and parent.gradient.large > 0:
                return f"{parent.name} starts at zero and is about to move"
            if parent.kind in ("constant", "buffer", "op"):
                return "multiplied by a constant zero"
            if parent.kind == "input":
                return f"its input {parent.name} is zero"
    return ""


def _multiplies(event: Event) -> bool:
    """A product or a matrix product: with zeros on one side, the other gets no gradient."""
    return event.name.rstrip("_") in _PRODUCTS


def _origins(flow: Flow, event: Event) -> list[Event]:
    """Factors that enter a product directly or through ops that only move entries."""
    factors = [parent for parent, _ in event.fed]
    if event.name in ("addmm", "baddbmm", "addbmm", "addmv"):
        factors = factors[1:]  # the first is added
    elif event.name in ("native_layer_norm", "native_batch_norm", "convolution"):
        factors = factors[:2]  # the third is added
    found, todo = [], [flow.events[p] for p in dict.fromkeys(factors)]
    while todo:
        event = todo.pop()
        if event.phase == "source" or (event.tool is not None and event.tool.made):
            found.append(event)
        elif event.tool is not None and (event.tool.moved or event.tool.copies):
            todo.extend(flow.events[p] for p in event.parents)
    return found


def _words(forward: Event) -> str:
    if not forward.inputs:
        return ""
    stats = forward.inputs[0]
    return f"input from {stats.low:.4g} to {stats.high:.4g}, gradient zero everywhere"
