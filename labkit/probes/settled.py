"""Losses that no weight can change."""

from labkit.probes.events import Event
from labkit.probes.flow import Flow


def settled(flow: Flow, node: Event) -> bool:
    """Is something in the losses of this node's step the same number, whatever comes in?"""
    losses = (loss for loss in flow.losses if flow.events[loss].step == node.step)
    return any(_always(flow.events[index]) for index in flow.over(losses))


def _always(event: Event) -> bool:
    """A softmax over one class, the spread of one sample, the distance of a tensor from itself."""
    if event.phase != "forward" or not event.outputs or not event.live:
        return False
    found, came = event.outputs[0], event.inputs[:1]
    if event.name in ("_log_softmax", "_softmax", "softmax", "log_softmax"):
        return found.low == found.high == (0 if "log" in event.name else 1)
    if event.name in ("var", "std", "var_mean", "std_mean"):
        return found.word == "zero" and bool(came) and came[0].low < came[0].high
    same = len(event.fed) == 2 and event.fed[0][0] == event.fed[1][0]
    return same and found.word == "zero" and (event.name == "sub" or "loss" in event.name)
