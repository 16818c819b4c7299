"""Parameters that the loss depends on, but that no graph leads to: find the cut."""

from dataclasses import replace

from labkit.probes.events import Event
from labkit.probes.finding import Finding
from labkit.probes.flow import Flow
from labkit.probes.report import Fate
from labkit.probes.verdict import Verdict

_WORDS = {
    "detach": "a detached copy carries no gradient back",
    "_local_scalar_dense": "a Python number carries no gradient back",
    "tensor": "torch.tensor copies values, not their history",
    "numpy": "numpy carries no gradient back",
    "tolist": "a Python list carries no gradient back",
}


def severed(session, parameters: list[Fate], leaves: dict[str, int], flow: Flow) -> Finding | None:
    """The first cut between a parameter that should be trained and the loss."""
    trained = trainees(session, leaves)
    found: list[Finding] = []
    for place, fate in enumerate(parameters):
        if fate.word != "none":
            continue
        leaf = leaves[fate.name]
        finding, excuse = _examine(session, flow, leaf, leaf in trained)
        if finding is None:
            parameters[place] = replace(fate, excused=excuse)
        else:
            found.append(finding)
    return min(found, key=lambda finding: finding.at, default=None)


def trainees(session, leaves: dict[str, int]) -> set[int]:
    """What is meant to be trained: what an optimizer holds, or else everything."""
    members = session.training.members()
    wanted = members & set(leaves.values())
    return wanted or set(leaves.values())


def _examine(session, flow: Flow, leaf: int, wanted: bool) -> tuple[Finding | None, str]:
    source = flow.sources.get(leaf)
    if source is None:
        return None, "not used in the traced steps"
    if not wanted:
        return None, "no optimizer holds it"
    inside = flow.to_loss(leaf)
    cuts = sorted(index for index in inside if flow.events[index].cut)
    if cuts:
        return _cut(flow, cuts[0], inside), ""
    if inside - set(flow.all_sources[leaf]):
        return None, "no backward ran from a loss that it enters"
    cuts = sorted(i for i in flow.below(leaf) if flow.events[i].cut)
    if cuts and _loss_stands_alone(session, flow):
        return _cut(flow, cuts[0], set(cuts)), ""
    return None, "the loss does not depend on it"


def _loss_stands_alone(session, flow: Flow) -> bool:
    """No traced parameter enters any loss: its values came from outside the graph."""
    sources = (index for found in flow.all_sources.values() for index in found)
    return not any(index in flow.above for index in sources)


def _cut(flow: Flow, index: int, inside: set[int]) -> Finding:
    event = flow.events[index]
    op, remark = _named(event)
    path = flow.way(index, inside)
    return Finding(Verdict.SEVERED, event, path, remark, op=op, at=index)


def _named(event: Event) -> tuple[str, str]:
    if event.name in _WORDS:
        name = {"_local_scalar_dense": "item"}.get(event.name, event.name)
        return name, _WORDS[event.name]
    if not event.graph:
        return "no_grad", "it ran without a graph"
    if event.outputs and not event.outputs[0].dtype.startswith(("float", "bfloat", "complex")):
        return event.name, f"its {event.outputs[0].dtype} result has no gradient"
    return event.name, "no graph leaves it"
