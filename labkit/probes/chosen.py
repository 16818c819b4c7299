"""Gradients that are zero because nothing was chosen: a branch, an expert, a row of a table."""

from labkit.probes.events import Event

_CHOOSES = {  # the values decide which places are read, and the other places hear nothing
    *("gather", "index", "index_select", "take", "masked_select", "topk", "sort", "max", "min"),
    *("amax", "amin", "median", "kthvalue"),
}
_EITHER = {"where", "maximum", "minimum", "fmax", "fmin"}  # between two, both of them trained
_JOINS = {"cat", "stack"}
_HANDS_ON = {"add", "sub", "expand", "sum", "mean"}


def unchosen(events: list[Event], node: Event) -> str:
    """The excuse of a node that sends nothing back, "" if it chose nothing.

    Args:
        events: the tape.
        node: a backward event with a gradient in and none out.
    """
    for _ in range(len(events)):
        if node.forward is None:
            return ""
        forward = events[node.forward]
        if _decides(events, forward):
            return "nothing of it was chosen in the traced steps"
        joined = forward.name in _JOINS
        if not joined and not _passes(forward):
            return ""
        above = [parent for parent, sent in node.fed if sent.large > 0]
        if not above or (not joined and len(above) > 1):
            return ""
        node = events[max(above)]
    return ""


def _decides(events: list[Event], forward: Event) -> bool:
    if forward.name in _CHOOSES:
        return True
    if forward.name not in _EITHER:
        return False
    parents = [events[parent] for parent in forward.parents]
    return sum(parent.live or parent.kind == "parameter" for parent in parents) > 1


def _passes(forward: Event) -> bool:
    tool = forward.tool
    return forward.name in _HANDS_ON or bool(tool and (tool.moved or tool.copies))
