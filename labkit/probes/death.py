"""A gradient that is exactly zero: the node where it died, unless it had to."""

from collections.abc import Iterator

from labkit.probes.cancelled import cancelled
from labkit.probes.chosen import unchosen
from labkit.probes.events import Event
from labkit.probes.finding import Finding
from labkit.probes.flow import Flow
from labkit.probes.growth import cancels, path_to
from labkit.probes.settled import settled
from labkit.probes.verdict import Verdict

_PRODUCTS = {"mul", "mm", "bmm", "mv", "dot", "addmm", "addmv", "baddbmm", "addbmm"} | {
    *("convolution", "addcmul", "native_batch_norm", "native_layer_norm"),
}
_ZEROED = {"pow", "lerp", "fill"}
_BOUNDED = {"clamp", "clamp_min", "clamp_max", "threshold", "nan_to_num"}  # here 0 is no factor
_STRAIGHT = ("threshold_backward", "leaky_relu_backward", "hardtanh_backward")  # in pieces
STRAIGHT = "a function that is straight in pieces has no second derivative"
_UNDERFLOWS = {"exp", "exp2", "sigmoid", "erfc", "_softmax", "softmax"}
_BOUNDS = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "hardtanh": (-1.0, 1.0)}


def death(session, flow: Flow, leaf: int, alone: bool = False) -> tuple[Finding | None, str]:
    """Where the gradient of one parameter died in every traced step, or why it may.

    `alone`: nothing else is trained either, so that a missing second derivative is no excuse.
    """
    arrivals = [a for a in session.gradients.arrivals if id(a.leaf) == leaf]
    roots = [root for a in arrivals for root in _roots(flow.events, flow.events[a.event])]
    written = [root for root in roots if root.forward is None]
    if written:
        return _by_python(written[0]), ""
    if any(cancels(flow.events, flow.events[a.event]) for a in arrivals):
        return None, "its terms cancel by construction"
    if not roots:
        finding = cancelled(flow, [flow.events[a.event] for a in arrivals])
        return finding, "" if finding else "no gradient was asked of it"
    findings = []
    for root in roots:
        excuse = _excuse(session, flow, root)
        if excuse and not (alone and excuse == STRAIGHT):
            return None, excuse
        findings.append(_finding(session, flow, root))
    return min(findings, key=lambda finding: finding.at), ""


def _roots(events: list[Event], start: Event) -> list[Event]:
    """Nodes with a gradient in and none out, upstream of a zero arrival."""
    todo, seen, roots = [start], set(), []
    while todo:
        event = todo.pop()
        for parent, sent in event.fed:
            if sent.large > 0:
                roots.extend(_inside(events, event))
            if parent in seen or sent.large > 0:
                continue
            seen.add(parent)
            node = events[parent]
            if any(stats.large > 0 for stats in node.inputs):
                roots.extend(_inside(events, node) or [node])
            else:
                todo.append(node)
    return roots


def _inside(events: list[Event], node: Event) -> list[Event]:
    """Ops that Python ran inside a node and that turn a gradient into zeros.

    A zero that is written there is meant.
    """
    ops = [events[index] for index in node.inner]
    alive = [op for op in ops if any(stats.large > 0 for stats in op.inputs[:1])]
    meant = (op for op in alive if 0 in op.scalars and op.name.rstrip("_") not in _BOUNDED)
    written = {op.index for op in meant}
    return [op for op in alive if _zero(op) and op.index not in written]


def _by_python(op: Event) -> Finding:
    remark = "nothing of the gradient is left here"
    return Finding(Verdict.DEAD, op, [op], remark, at=op.index)


def _finding(session, flow: Flow, node: Event) -> Finding:
    """Blame the node; a product with zeros is the fault of what made the zeros."""
    forward, emptied = flow.events[node.forward], session.calls.emptied
    zero = forward if forward.index in emptied else _zeros(flow, forward, emptied)
    zero = zero or _underflow(flow, node) or _made_real(flow, node)
    if zero is not None:
        forward, node = zero, flow.backward_of(zero) or node
    remark = _words(forward)
    finding = Finding(Verdict.DEAD, forward, flow.way(forward.index, flow.above), remark)
    finding.op, finding.phase, finding.at = node.node, "backward", forward.index
    if forward.index in emptied:
        finding.op, finding.phase, finding.remark = "dropout", "forward", "it drops every entry"
    return finding


def _zeros(flow: Flow, event: Event, emptied: set[int]) -> Event | None:
    """The op that turned something into nothing but zeros, upstream of a product."""
    todo = [flow.events[p] for p in event.parents]
    while todo:
        event = todo.pop()
        if event.phase != "forward" or not event.outputs or event.outputs[0].word != "zero":
            continue
        if event.index in emptied:
            return event
        looked = event.inputs if _multiplies(event) else event.inputs[:1]
        if not any(s.word == "zero" for s in looked):
            return event if event.tool and not event.tool.made and event.inputs else None
        todo.extend(flow.events[p] for p in event.parents)
    return None


def _above(flow: Flow, node: Event) -> Iterator[Event]:
    """The forward ops whose nodes sent this one its gradient, nearest first."""
    for sender in reversed(path_to(flow.events, node)[:-1]):
        if sender.forward is not None:
            yield flow.events[sender.forward]


def _underflow(flow: Flow, node: Event) -> Event | None:
    """The op nearest above that left a gradient only where this one is flat: on a diagonal.

    ``exp(-d)`` of far points is zero but for a point and itself, and there the root of d, its
    square and its size have no slope.
    """
    first = flow.events[node.forward].inputs[:1]
    if not first or not 0 < first[0].zero < first[0].size:
        return None
    for forward in _above(flow, node):
        if forward.name.rstrip("_") in _UNDERFLOWS:
            return forward if forward.outputs and forward.outputs[0].zero > 0 else None
    return None


def _made_real(flow: Flow, node: Event) -> Event | None:
    """The cast that dropped the imaginary part, if the gradient of that part died here."""
    if not node.name.startswith(("Complex", "Imag")):
        return None
    for forward in _above(flow, node):
        if forward.inputs and forward.outputs:
            was, now = forward.inputs[0].dtype, forward.outputs[0].dtype
            if was.startswith("complex") and not now.startswith("complex"):
                return forward
    return None


def _excuse(session, flow: Flow, node: Event) -> str:
    forward = flow.events[node.forward]
    if forward.index in session.calls.emptied:
        return ""
    if reason := unchosen(flow.events, node):
        return reason
    losses = [root.value for root in session.calls.roots if root.step == node.step]
    if losses and all(value == 0 for value in losses) and not _stuck(node, forward):
        zero = _zeros(flow, forward, set())
        # finite over infinite is zero, and no success; nor is what can be nothing else
        if not (zero and zero.bad_input) and not settled(flow, node):
            return "the loss is zero already"
    if 0 in forward.scalars and (_multiplies(forward) or forward.name.rstrip("_") in _ZEROED):
        return "multiplied by a constant zero"
    if forward.name in _STRAIGHT:
        return STRAIGHT
    if not _multiplies(forward):
        return ""
    for parent in _factors(flow, forward):
        moving = _moving(flow, parent) if _zero(parent) else ""
        if moving:
            return f"{moving} starts at zero and is about to move"
    if any(_weight(parent) for parent in _factors(flow, forward)):
        return "its weight in the loss is zero for now"
    for parent in _origins(flow, forward):
        if _zero(parent):
            if parent.kind in ("constant", "buffer", "op"):
                return "multiplied by a constant zero"
            if parent.kind == "input":
                return f"its input {parent.name} is zero"
    return ""


def _weight(factor: Event) -> bool:
    """One number, zero, that no parameter makes: a schedule's."""
    return _zero(factor) and factor.outputs[0].size == 1 and not factor.live


def _stuck(node: Event, forward: Event) -> bool:
    """Is a bounded function at one of its bounds, with a gradient that wants to leave it?"""
    bounds = _BOUNDS.get(forward.name.rstrip("_"))
    if bounds is None or not (node.inputs and forward.outputs):
        return False
    grad, value = node.inputs[0], forward.outputs[0]
    at_low, at_high = value.high <= bounds[0], value.low >= bounds[1]
    return (at_low and grad.high < 0) or (at_high and grad.low > 0)


def _multiplies(event: Event) -> bool:
    """A product or a matrix product: with zeros on one side, the other gets no gradient."""
    return event.name.rstrip("_") in _PRODUCTS


def _moving(flow: Flow, factor: Event) -> str:
    """The parameter that makes a factor zero for now, being zero itself, but with a gradient."""
    todo, seen = [factor], {factor.index}
    while todo:
        event = todo.pop()
        if event.kind == "parameter" and event.gradient and event.gradient.large > 0:
            return event.name
        zeros = (flow.events[p] for p in event.parents if event.phase == "forward")
        fresh = [e for e in zeros if e.index not in seen and _zero(e)]
        seen.update(e.index for e in fresh)
        todo.extend(fresh)
    return ""


def _zero(event: Event) -> bool:
    return bool(event.outputs) and all(stats.word == "zero" for stats in event.outputs)


def _factors(flow: Flow, event: Event) -> list[Event]:
    """What enters a product, without what is only added to it."""
    factors = [parent for parent, _ in event.fed]
    if event.name in ("addmm", "baddbmm", "addbmm", "addmv"):
        factors = factors[1:]  # the first is added
    elif event.name in ("native_layer_norm", "native_batch_norm", "convolution"):
        factors = factors[:2]  # the third is added
    return [flow.events[p] for p in dict.fromkeys(factors)]


def _origins(flow: Flow, event: Event) -> list[Event]:
    """Factors that enter a product directly or through ops that only move entries."""
    found, todo = [], _factors(flow, event)
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
