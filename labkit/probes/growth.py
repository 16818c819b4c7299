"""Gradients that shrink to nothing or grow beyond use on their way to a parameter."""

import itertools
import math
from collections import defaultdict

from labkit.probes.events import Event
from labkit.probes.finding import Finding
from labkit.probes.flow import Flow
from labkit.probes.verdict import Verdict

VANISHED = 1e-6  # largest entry, as a share of the largest among all parameters
ROUNDED = 1e-4  # the same behind a normalisation of equal entries, which hands on rounding alone
FAIR = 1e3  # where that one is larger still, it is too large, and not the others too small
CANCELLED = 1e-5  # what may be left of a sum that is zero by construction
EXPLODED = 1e6  # largest entry, in units of the loss (of 1 where the loss is smaller)
HUGE = 1e12  # largest entry, whatever the loss
LOOP = 5  # rounds of a loop before its growth is judged
GAIN = 1e4  # growth of the gradient from the last to the first round of a loop
LOSS = 1e-2  # a loss below this may rise to its usual size: some begin at zero
DIVERGED = 1e4  # growth of the loss over the traced steps
_ADDS = ("AddBackward", "SubBackward", "RsubBackward", "ExpandBackward")
_HANDED_ON = {  # a gradient passes as it is, or in parts that are added up
    *("add", "sub", "rsub", "neg", "expand", "sum", "mean", "cat", "stack", "index", "gather"),
    *("select", "slice", "split", "chunk", "unbind", "narrow", "index_select", "repeat", "flip"),
}
_LAYERS = ("Addmm", "Convolution", "Linear")  # beside a product, they add a bias


def vanished(flow: Flow, leaf: int) -> tuple[Finding | None, str]:
    """A gradient too small to count in every traced step."""
    mine, largest = flow.of_leaf.get(leaf, ()), flow.largest
    least = ROUNDED if flow.flat and flow.flat & flow.below(leaf) else VANISHED
    small = [a for a in mine if 0 < a.stats.large < least * min(largest[a.step], FAIR)]
    if not mine or len(small) < len(mine):
        return None, ""
    if any(cancels(flow.events, flow.events[a.event]) for a in small):
        return None, "its terms cancel by construction"
    share = max(a.stats.large / largest[a.step] for a in small)
    path = path_to(flow.events, flow.events[small[0].event])
    return _blamed(Verdict.VANISHING, flow, path, f"{share:.1e} of the largest gradient"), ""


def cancels(events: list[Event], arrival: Event) -> bool:
    """Did large terms add up to (nearly) nothing in the last sum before the leaf?"""
    left = arrival.outputs[0].large
    for parent, sent in arrival.fed:
        if sent.large > 0 and left <= CANCELLED * sent.large:
            return True
        node = events[parent]
        flat = len(arrival.outputs[0].shape) <= 1  # a bias: a layer only adds it
        adds = node.name.startswith(_ADDS) or (flat and node.name.startswith(_LAYERS))
        entered = max((s.large for s in node.inputs), default=0.0)
        if adds and entered > 0 and left <= CANCELLED * entered:
            return True
    return False


def exploded(session, flow: Flow) -> Finding | None:
    """Gradients out of proportion, a loop that multiplies them, or a loss that runs away."""
    finding = _diverged(session, flow) or _loop(session, flow) or _large(session, flow)
    if finding is not None and not finding.leaves:
        finding.leaves = {id(arrival.leaf) for arrival in _out_of_proportion(session)}
    return finding


def _out_of_proportion(session) -> list:
    """What arrived at leaves and is far too large for its loss."""
    losses: dict[int, float] = defaultdict(lambda: 1.0)
    for root in session.calls.roots:
        size = abs(root.value) if math.isfinite(root.value) else 1.0
        losses[root.step] = max(losses[root.step], size)
    arrivals = session.gradients.arrivals
    return [a for a in arrivals if a.stats.large > min(HUGE, EXPLODED * losses[a.step])]


def _large(session, flow: Flow) -> Finding | None:
    for arrival in _out_of_proportion(session)[:1]:
        path = path_to(flow.events, flow.events[arrival.event])
        remark = f"gradient up to {arrival.stats.large:.1e}"
        return _blamed(Verdict.EXPLODING, flow, path, remark)
    return None


def _loop(session, flow: Flow) -> Finding | None:
    """The line of a loop over whose rounds the gradient grows, and the op that multiplies it."""
    rounds: dict[tuple, dict[str, list[Event]]] = defaultdict(lambda: defaultdict(list))
    for event in flow.events:
        if event.phase == "forward" and event.gradient is not None and event.gradient.large > 0:
            rounds[event.step, event.code, event.line][event.name].append(event)
    worst, found, count = GAIN, None, 0
    for ops in rounds.values():
        often = [events for events in ops.values() if len(events) >= LOOP]
        turns = min(map(len, often), default=0)  # an op that stands there twice runs twice a round
        for events in [one for one in often if _scales(one[0])] or often:
            gain = events[0].gradient.large / events[-1].gradient.large
            if gain > worst and events[-1].index in flow.after(events[0].index):  # one by one
                worst, found, count = gain, events, turns
    if found is None:
        return None
    remark = f"gradient grows {worst:.1e} times over {count} rounds"
    node = flow.backward_of(found[0])
    finding = Finding(Verdict.EXPLODING, found[0], flow.way(found[0].index, flow.above), remark)
    finding.op, finding.phase = (node.node if node else found[0].name), "backward"
    finding.at = found[0].index
    return finding


def _scales(event: Event) -> bool:
    """Can this op make a gradient larger? A sum, a copy or another shape cannot."""
    tool = event.tool
    return tool is None or not (tool.moved or tool.copies or event.name.rstrip("_") in _HANDED_ON)


def _diverged(session, flow: Flow) -> Finding | None:
    values: dict[int, float] = {}
    for root in session.calls.roots:
        values[root.step] = root.value
    losses = [abs(values[step]) for step in sorted(values)]
    if len(losses) < 3 or not session.training.moves:
        return None
    doubles = all(b > 2 * a for a, b in itertools.pairwise(losses))
    start = losses[0] if doubles else max(losses[: max(2, len(losses) // 4)])
    if losses[-1] < max(DIVERGED * max(start, LOSS), *losses):
        return None
    finding = rate(
        flow, session.training.moves[0], losses, f"in steps {min(values)} to {max(values)}"
    )
    finding.leaves = {id(move.leaf) for move in session.training.moves}
    return finding


def rate(flow: Flow, move, losses: list[float], steps: str) -> Finding:
    """Blame the optimizer's step: each of the losses is far above the one before."""
    writer = flow.events[move.writer] if move.writer is not None else None
    remark = f"the loss grows from {losses[0]:.2g} to {losses[-1]:.2g} {steps}"
    remark = f"{remark}; learning rate {move.lr:g}"
    return Finding(Verdict.EXPLODING, writer, [], remark, op="step", phase="optimizer")


def path_to(events: list[Event], arrival: Event) -> list[Event]:
    """Backward nodes from the loss to a leaf, along the largest gradient."""
    path, event = [], arrival
    while event.fed:
        parent = max(event.fed, key=lambda pair: pair[1].large)[0]
        event = events[parent]
        path.append(event)
    return [*path[::-1], arrival]


def _blamed(verdict: Verdict, flow: Flow, path: list[Event], remark: str) -> Finding:
    """Blame the line, then the kind of node in it, that changes the gradient most."""
    steps = _gains(path, 1 if verdict is Verdict.EXPLODING else -1)
    for same in (lambda node: (node.code, node.line), lambda node: node.name):
        total: dict[object, float] = defaultdict(float)
        for node, gain in steps:
            total[same(node)] += gain
        most = max(total, key=total.get, default=None)
        steps = [(node, gain) for node, gain in steps if same(node) == most]
    node = max(steps, key=lambda step: step[1])[0] if steps else path[-2]
    forward = flow.events[node.forward]
    finding = Finding(verdict, forward, flow.way(forward.index, flow.above), remark)
    finding.op, finding.phase, finding.at = node.node, "backward", forward.index
    return finding


def _gains(path: list[Event], sign: int) -> list[tuple[Event, float]]:
    """Each node of a path with the logarithm of what it does to the largest entry."""
    found = []
    for node, after in itertools.pairwise(path):
        entered = max((s.large for s in node.inputs), default=0.0)
        left = max((s.large for s in after.inputs or after.outputs), default=0.0)
        if entered > 0 and left > 0:
            found.append((node, sign * math.log2(left * _spread(node, after) / entered)))
    return found


def _spread(node: Event, after: Event) -> float:
    """A mean hands each entry its share: nothing is lost, the shares are added up again later."""
    if not node.name.startswith("Mean"):
        return 1.0
    entered = max((s.size for s in node.inputs), default=1)
    left = max((s.size for s in after.inputs or after.outputs), default=1)
    return max(left / max(entered, 1), 1.0)
