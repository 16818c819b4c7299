"""Ways from a leaf to a loss on which a gradient was asked for and none was handed back."""

from labkit.probes.finding import Finding
from labkit.probes.flow import Flow
from labkit.probes.frames import Place
from labkit.probes.verdict import Verdict


def unanswered(session, flow: Flow, leaf: int, inside: set[int]) -> Finding | None:
    """A backward of the user's own that returned None, or a derivative taken without a graph.

    Args:
        inside: the events on a way from the leaf to a loss.
    """
    return _refused(session, flow, inside) or _flat(session, flow, leaf)


def _refused(session, flow: Flow, inside: set[int]) -> Finding | None:
    """The custom Function nearest to the leaf that had a gradient and gave None for an input."""
    found = [r for r in session.gradients.refused if flow.events[r[0]].forward in inside]
    if not found:
        return None
    index, function = min(found, key=lambda r: flow.events[r[0]].forward)
    node = flow.events[index]
    remark = "its backward returns None where a gradient is waited for"
    finding = Finding(Verdict.SEVERED, node, [node], remark, op=node.name, phase="backward")
    finding.at, finding.place = node.forward, _last_line(function, node)
    return finding


def _last_line(function, node):
    """Where its backward returns."""
    code = getattr(getattr(function, "backward", None), "__code__", None)
    if code is None:
        return None
    line = max(line for _, _, line in code.co_lines() if line is not None)
    return Place(code, line, node.module, None)


def _flat(session, flow: Flow, leaf: int) -> Finding | None:
    """torch.autograd.grad without create_graph: what it gives is a number to the loss."""
    below, found, reached = flow.below(leaf), None, flow.over(flow.losses)
    for of, made, graph in session.gradients.derived:
        if of in below and graph:
            below = below | flow.after(made)  # a derivative of this one depends on the leaf too
        elif of in below and made in reached:  # an update of the leaf itself is no loss
            found = made if found is None else found
    if found is None:
        return None
    event = flow.events[found]
    path = flow.way(event.index, flow.above)
    remark = "without create_graph=True the derivative carries no gradient back"
    return Finding(Verdict.SEVERED, event, path, remark, op="grad", phase="forward", at=event.index)
