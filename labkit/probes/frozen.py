"""Alive gradients that move nothing, and gradients that were undone before the update."""

from collections import defaultdict

from labkit.probes.blame import Walk
from labkit.probes.events import Event
from labkit.probes.finding import Finding
from labkit.probes.flow import Flow, spread
from labkit.probes.verdict import Verdict
from labkit.probes.words import birth_words

STUCK = {"bfloat16": 0.5, "float16": 0.5}  # share of unchanged entries that is a fault
STUCK_ELSE = 0.9
_COPY = {"data", "index_put_", "masked_scatter_"}


def unmoved(session, flow: Flow, leaf: int, wanted: set[int]) -> tuple[Finding | None, str]:
    """Why a parameter with a gradient does not move."""
    members = session.training.members()
    if leaf not in members and (members & wanted or _elsewhere(session, members)):
        own = _updates_itself(session, flow, leaf)
        return (None, "") if own else (_left_out(session, flow, leaf), "")
    moves = [m for m in session.training.moves if id(m.leaf) == leaf]
    if leaf in members and not moves:
        never = session.given and len(session.ends) >= 3 and not session.training.stepped
        return (_never(session, flow, leaf) if never else None), ""
    moving = [m for m in moves if m.gradient is not None and m.gradient.large > 0]
    if not moving:
        return None, ""
    if all(m.lr == 0 for m in moving):
        if len(moving) < 2 and not moving[0].resting:
            return None, "the learning rate is zero in the only traced step"
        return _stuck(flow, moving, "the learning rate is zero in every step"), ""
    if finding := _written_back(flow, moves):
        return finding, ""
    if all(m.still > STUCK.get(m.gradient.dtype, STUCK_ELSE) for m in moving):
        dtype, share = moving[-1].stats.dtype, min(m.still for m in moving)
        remark = f"{share:.0%} of the entries did not move: the update is below {dtype}'s rounding"
        return _stuck(flow, moving, remark), ""
    return None, ""


def _elsewhere(session, members: set[int]) -> bool:
    """Did optimizers step, and all they hold never got a gradient?"""
    moved = {id(move.leaf) for move in session.training.moves if move.gradient is not None}
    reached = {id(arrival.leaf) for arrival in session.gradients.arrivals}
    return bool(session.training.moves) and not members & (moved | reached)


def _stuck(flow: Flow, moves, remark: str) -> Finding:
    move = moves[0]
    event = flow.events[move.writer] if move.writer is not None else None
    finding = Finding(Verdict.FROZEN, event, [], remark, phase="optimizer", at=move.event)
    finding.leaves = {id(move.leaf)}
    if event is None:
        finding.op, finding.place = "step", move.place
    return finding


def _written_back(flow: Flow, moves) -> Finding | None:
    """After every step the program copies old values over the new ones."""
    if len(moves) < 3 or not all(move.returned for move in moves[1:]):
        return None
    first, second = moves[:2]
    writers = flow.writers.get(id(first.leaf), ())
    between = [flow.events[i] for i in writers if first.event <= i < second.began]
    writer = between[-1] if between else None
    if writer is None or not (writer.name in _COPY or (writer.tool and writer.tool.copies)):
        return None
    moved = {i for i in flow.all_sources.get(id(first.leaf), ()) if i >= first.event}
    if writer.outputs[0].word == "zero" and _reads(flow, writer, moved):
        return None  # a threshold or a bound that is computed from the new value
    remark = "after every step it is written back to what it was before"
    finding = Finding(Verdict.FROZEN, writer, [], remark, at=writer.index)
    finding.leaves = {id(first.leaf)}
    return finding


def _reads(flow: Flow, writer: Event, wanted: set[int]) -> bool:
    """Is what is written computed from one of these events?"""
    return bool(wanted & _ancestors(flow, *(parent for parent, _ in writer.fed[1:])))


def _updates_itself(session, flow: Flow, leaf: int) -> bool:
    """Does the program write it itself, from its own gradient?"""
    mine = {a.event for a in session.gradients.arrivals if id(a.leaf) == leaf}
    writers = (flow.events[i] for i in flow.writers.get(leaf, ()))
    return any(_reads(flow, writer, mine) for writer in writers if writer.phase == "forward")


def _in_turn(session) -> bool:
    """Does the optimizer get gradients for some parameters in one step, for others in the next?"""
    turns: dict[int, set[int]] = {}
    for move in session.training.moves:
        alive = turns.setdefault(move.began, set())
        if move.gradient is not None and move.gradient.large > 0:
            alive.add(id(move.leaf))
    sets = list(turns.values())
    return all(sets) and any(one != sets[0] for one in sets)


def _never(session, flow: Flow, leaf: int) -> Finding:
    event = flow.events[flow.sources[leaf]] if leaf in flow.sources else None
    remark = "no optimizer stepped in the traced steps"
    finding = Finding(Verdict.FROZEN, event, [], remark, op="step", phase="optimizer")
    emptied = [n for n in session.calls.notes if n.what == "grad = None" and n.tensor == leaf]
    if emptied:
        finding.remark = f"{remark}, and here its gradient was emptied"
        finding.place = emptied[-1].place
    return finding


def _left_out(session, flow: Flow, leaf: int) -> Finding:
    """No optimizer holds it: say where the optimizer was built, or the parameter made anew."""
    event = flow.events[flow.sources[leaf]] if leaf in flow.sources else None
    remark = "it gets a gradient, but no optimizer holds it"
    finding = Finding(Verdict.FROZEN, event, [], remark, phase="optimizer", op="add_param_group")
    finding.name = event.name if event else ""
    made = session.tape.created.get(leaf)
    builders = list(session.calls.builders.values())
    if builders:
        late = made is not None and made.index >= builders[-1][2]
        hidden = leaf in session.hidden
        finding.place = made if made is not None and (late or hidden) else builders[-1][1]
        if late:
            finding.remark = "made after the optimizer was built, so no optimizer holds it"
    elif made is not None:
        finding.place = made
    return finding


def undone(session, flow: Flow) -> Finding | None:
    """A gradient arrived, and was gone or zero when the optimizer came."""
    if _in_turn(session):
        return None
    found, before, mine = None, {}, defaultdict(list)
    moves = session.training.moves
    lived = {id(m.leaf) for m in moves if m.gradient is not None and m.gradient.large > 0}
    for arrival in session.gradients.arrivals:
        mine[id(arrival.leaf)].append(arrival)
    for move in (move for move in moves if id(move.leaf) not in lived):
        arrival = _waiting(mine[id(move.leaf)], before.get(id(move.leaf), -1), move.began)
        before[id(move.leaf)] = move.event
        if arrival is None or not arrival.stats.large > 0:
            continue
        if move.gradient is None:
            finding = _dropped(session, move, arrival) or _taken(flow, arrival)
        else:
            finding = _zeroed(flow, move) if move.gradient.large == 0 else None
        found = found or finding
        if finding is not None:
            found.leaves.add(id(move.leaf))
    return found


def _waiting(arrivals: list, since: int, until: int):
    """The last gradient that came to a leaf after its last update and before this one."""
    return next((a for a in reversed(arrivals) if since <= a.event <= until), None)


def betrayed(session, flow: Flow) -> Finding | None:
    """A saved value that was written through ``.data`` before its backward ran."""
    if not session.gradients.wrong:
        return None
    writer, node = (flow.events[i] for i in min(session.gradients.wrong))
    remark = f"{node.name} had saved these values: its gradient is now wrong, without a word"
    return Finding(Verdict.WRONG, writer, [writer, node], remark, at=writer.index)


def _dropped(session, move, arrival) -> Finding | None:
    notes = [
        note
        for note in session.calls.notes
        if note.what == "grad = None"
        and note.tensor == id(move.leaf)
        and arrival.event < note.at <= move.began
    ]
    if not notes:
        return None
    remark = "the gradient was dropped between backward and step"
    finding = Finding(Verdict.SEVERED, None, [], remark, op="zero_grad", phase="optimizer")
    finding.place, finding.at = notes[-1].place, notes[-1].at
    return finding


def _taken(flow: Flow, arrival) -> Finding | None:
    """torch.autograd.grad gave it, and neither .grad nor a parameter nor a loss got it."""
    event = flow.events[arrival.event]
    if not arrival.taken:
        return None
    made = spread([event.index], lambda index: flow.children.get(index, ()))
    if made & flow.above or made & flow.rewritten.keys():
        return None
    remark = "torch.autograd.grad returns the gradient and leaves .grad as it is"
    return Finding(Verdict.SEVERED, event, [event], remark, op="grad", at=event.index)


def _zeroed(flow: Flow, move) -> Finding:
    writer = flow.events[move.origin]
    walk = Walk(flow.events)
    births = [
        event
        for event in (flow.events[i] for i in _ancestors(flow, move.origin))
        if event.bad and event.phase in ("forward", "optimizer") and not walk.causes(event)
    ]
    if births:
        birth = min(births, key=lambda event: event.index)
        remark = f"{birth_words(birth)}; the clipping then zeroes every gradient"
        return Finding(Verdict.DEAD, birth, [birth, writer], remark, phase="optimizer")
    remark = "the gradient was set to zero between backward and step"
    op = "zero_grad" if writer.name.startswith(("zero", "_foreach_zero")) else writer.name
    return Finding(Verdict.SEVERED, writer, [], remark, op=op, phase="optimizer", at=writer.index)


def _ancestors(flow: Flow, *start: int) -> set[int]:
    return spread(start, lambda i: flow.events[i].parents)
