"""A step that trains nothing: no backward ran, or the model took no part."""

from labkit.probes.finding import Finding
from labkit.probes.flow import Flow
from labkit.probes.verdict import Verdict


def idle(session, flow: Flow) -> Finding | None:
    """Why no parameter was trained; None if one was, or if an evaluation was meant.

    An evaluation is meant where no optimizer is there and every model is in eval mode.
    """
    models = session.models or [root for _, root in session.tape.roots]
    if _ran(session):
        return _unused(session, flow)
    evaluating = models and not any(model.training for model in models)
    if evaluating and flow.events and not session.training.optimizers:
        return None
    finding = _unused(session, flow) or _frozen(session, models) or _without_graph(flow)
    return finding or _stepped(session) or _told("no backward", _why(session, flow))


def _told(op: str, remark: str) -> Finding:
    return Finding(Verdict.UNTRAINED, None, [], remark, op=op, phase="forward")


def _ran(session) -> bool:
    """Did anything receive a gradient, by a backward or by hand?"""
    moved = any(move.gradient is not None for move in session.training.moves)
    return moved or any(event.phase == "backward" for event in session.tape.events)


def _unused(session, flow: Flow) -> Finding | None:
    """The model that was named has parameters to train, and the step read none of them."""
    leaves = [p for model in session.models for p in model.parameters() if p.requires_grad]
    if not leaves or not flow.events or session.error is not None:
        return None
    if any(id(leaf) in flow.sources and not flow.averaged(id(leaf)) for leaf in leaves):
        return None
    finding = _told("model", f"the step used none of the {len(leaves)} parameters of `model`")
    finding.place = _in_its_place(flow)
    finding.spoilt = dict.fromkeys(map(id, leaves), "not updated")
    return finding


def _in_its_place(flow: Flow):
    """Where something else to train was called, on the way to a loss; or else the loss."""
    events = map(flow.events.__getitem__, sorted(flow.above))
    reads = (e for e in events if e.phase == "forward" and e.live and e.graph)
    first = next((e for e in reads if any(_trains(flow.events[p]) for p in e.parents)), None)
    return first or (flow.events[max(flow.losses)] if flow.losses else None)


def _trains(event) -> bool:
    return event.phase == "source" and event.kind == "parameter"


def _frozen(session, models: list) -> Finding | None:
    leaves = [p for model in models for p in model.parameters()]
    if not leaves or any(leaf.requires_grad for leaf in leaves):
        return None
    finding = _told("requires_grad_", f"all {len(leaves)} parameters of the model are frozen")
    notes = [note for note in session.calls.notes if note.value is False]
    finding.place = notes[-1].place if notes else None
    return finding


def _without_graph(flow: Flow) -> Finding | None:
    """The first op on something trainable that ran without a graph."""
    cut = (e for e in flow.events if e.phase == "forward" and e.live and not e.graph)
    event = next(cut, None)
    if event is None:
        return None
    finding = _told("no_grad", "it ran without a graph, so there is nothing to train by")
    finding.event, finding.at = event, event.index
    return finding


def _stepped(session) -> Finding | None:
    moves = session.training.moves
    if not moves:
        return None
    finding = _told("step", "the optimizer stepped, and no backward ran before it")
    finding.phase, finding.place = "optimizer", moves[0].place
    return finding


def _why(session, flow: Flow) -> str:
    if session.error is not None:
        return f"{type(session.error).__name__} came before it"
    if session.returned:
        return f"the step returned {session.returned}"
    return "none ran in the block" if flow.events else "nothing ran in the block"
