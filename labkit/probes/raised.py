"""Errors of autograd that are findings: a graph that was cut, or data that was overwritten."""

import re
from dataclasses import replace

from labkit.probes.events import Event
from labkit.probes.finding import Finding
from labkit.probes.flow import Flow
from labkit.probes.report import Fate
from labkit.probes.severed import cut_at, trainees
from labkit.probes.verdict import Verdict

OVERWRITTEN = "modified by an inplace operation"
CUT = "does not require grad and does not have a grad_fn"
INFERENCE = "Inference tensors cannot be saved for backward"


def explained(error: BaseException | None) -> bool:
    """Is this an error that the report names a line for?"""
    text = str(error) if isinstance(error, RuntimeError) else ""
    return any(known in text for known in (OVERWRITTEN, CUT, INFERENCE))


def raised(session, flow: Flow) -> Finding | None:
    """The op that overwrote what a backward needs; a cut graph is found as any other."""
    error = session.error
    if not explained(error):
        return None
    if INFERENCE in str(error):
        return _inference(flow)
    if OVERWRITTEN not in str(error):
        return None
    found = re.search(r"output \d+ of (\w+)", str(error))
    node = found[1] if found else ""
    writes = [e for e in flow.events if e.mutates and e.phase != "backward" and e.fed]
    guilty = [e for e in writes if _over(flow, e, node)] or writes
    if not guilty:
        return None
    event = guilty[-1]
    remark = f"it overwrites what {node or 'a node'} keeps for backward"
    return Finding(Verdict.SEVERED, event, [event], remark, at=event.index)


def without_graph(session, flow: Flow) -> Finding | None:
    """Where the loss lost its graph, if all parameters had a gradient from another one."""
    if CUT not in str(session.error or "") or not session.calls.roots:
        return None
    inside = flow.over({session.calls.roots[-1].event})
    lost = [i for i in inside if flow.events[i].live and not flow.events[i].graph]
    lost = lost or [i for i in inside if flow.events[i].cut]
    return cut_at(flow, min(lost), inside) if lost else None


def unserved(session, parameters: list[Fate], leaves: dict[str, int]) -> None:
    """The backward stopped: no other excuse holds for those that wait for a gradient."""
    wanted = trainees(session, leaves)
    for place, fate in enumerate(parameters):
        if fate.word == "none" and leaves[fate.name] in wanted:
            parameters[place] = replace(fate, excused="")


def _inference(flow: Flow) -> Finding | None:
    """The first op on something trainable that ran in inference mode."""
    cut = next((e for e in flow.events if e.live and not e.graph and e.phase == "forward"), None)
    if cut is None:
        return None
    remark = "it ran in inference mode, whose tensors no backward can use"
    return Finding(Verdict.SEVERED, cut, [cut], remark, op="inference_mode", at=cut.index)


def _over(flow: Flow, write: Event, node: str) -> bool:
    """Does this write change a tensor that the node made, or a view or a base of it?"""
    event = flow.events[write.fed[0][0]]
    kin = {event.index}
    while event.tool is not None and event.tool.moved and event.fed:
        event = flow.events[event.fed[0][0]]
        kin.add(event.index)
    kin.update(child for index in tuple(kin) for child in flow.children.get(index, ()))
    return any(node and flow.events[index].node.startswith(node) for index in kin)
