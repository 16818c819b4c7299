"""A NaN or infinity that did harm: walk back to where it was born."""

import math
import re

from labkit.probes.events import Event
from labkit.probes.finding import Finding
from labkit.probes.harm import sinks
from labkit.probes.verdict import Verdict
from labkit.probes.words import birth_words


def blame(session) -> Finding | None:
    """The earliest harm and the event that began it; None if no bad value did harm."""
    walk = Walk(session.tape.events)
    harm = [sink for sink in sinks(session) if sink.what != "built" or not walk.written(sink.event)]
    if not harm:
        return None
    first = min(harm, key=lambda sink: sink.at)
    root, path = walk.back(session.tape.events[first.event])
    for sink in harm:
        walk.mark(session.tape.events[sink.event])
    verdict = Verdict.NAN if first.stats.nan else Verdict.INF
    finding = Finding(verdict, root, path, birth_words(root, walk), at=first.at)
    if root.tool is not None and root.node and root.phase == "backward":
        _place_in_forward(walk, root, finding)
    if root.phase == "source":
        finding.phase = "parameter" if root.kind in ("parameter", "buffer") else "input"
        finding.name = root.name
    elif _updates(session, path):
        finding.phase = "optimizer"
    finding.leaves = {sink.leaf for sink in harm if sink.leaf is not None}
    finding.spoilt = {
        sink.leaf: "nan" if sink.stats.nan else "inf" for sink in harm if sink.leaf is not None
    }
    return finding


def _place_in_forward(walk: "Walk", root: Event, finding: Finding) -> None:
    """An op inside a node that no hook saw (torch.func): name the forward op of that node."""
    name = re.sub(r"Backward\d*$", "", root.node).lower()
    todo, seen = [root], {root.index}
    while todo:
        event = max(todo, key=lambda event: event.index)
        todo.remove(event)
        if event.phase == "forward" and event.name.strip("_").replace("_", "") == name:
            finding.op, finding.place = root.node, event
            return
        fresh = [parent for parent in event.parents if parent not in seen]
        seen.update(fresh)
        todo.extend(walk.events[parent] for parent in fresh)


def _updates(session, path: list[Event]) -> bool:
    """Does the way lead under no_grad, after a backward, into a parameter?"""
    first, last = path[0], path[-1]
    backward = [a.event for a in session.gradients.arrivals if a.step == last.step]
    late = bool(backward) and min(backward) < first.index
    return late and all(e.phase in ("forward", "optimizer") and not e.graph for e in path)


class Walk:
    """Follows bad values upwards through the tape."""

    def __init__(self, events: list[Event]):
        self.events = events
        self._meant: dict[int, bool] = {}

    def back(self, start: Event) -> tuple[Event, list[Event]]:
        """The earliest birth that this event's bad values come from, and the way from it."""
        came: dict[int, Event | None] = {start.index: None}
        todo, roots = [start], []
        while todo:
            event = todo.pop()
            causes = self.causes(event)
            if not causes:
                roots.append(event)
            for cause in causes:
                if cause.index not in came:
                    came[cause.index] = event
                    todo.append(cause)
        root = min(roots, key=lambda event: event.index) if roots else start
        if self.meant(root) and root is not start:
            root = self._selected(root, came)
        path, event = [], root
        while event is not None:
            path.append(event)
            event = came[event.index]
        return root, path

    def written(self, source: int) -> bool:
        """Were a leaf's infinities written down (a forbidden transition), not computed?"""
        return all(self.meant(self.events[parent]) for parent in self.events[source].parents)

    def mark(self, start: Event) -> None:
        """Everything on a way from a birth to this harm is harmful."""
        todo = [start]
        while todo:
            event = todo.pop()
            if not event.harmful:
                event.harmful = True
                todo.extend(self.causes(event))

    def _selected(self, root: Event, came: dict) -> Event:
        """Where an infinity that was meant is let into a result: the first op that reduces."""
        event = came[root.index]
        while came[event.index] is not None:
            if event.inputs and event.outputs and event.outputs[0].size < event.inputs[0].size:
                break
            event = came[event.index]
        return event

    def causes(self, event: Event) -> list[Event]:
        """Earlier events whose bad values explain this one's; empty at a birth."""
        if event.phase == "source" and not event.parents:
            return []
        if event.phase == "backward" and not event.tool:
            return self._backward(event)
        parents = self._bad_parents(event)
        real = [p for p in parents if not self.meant(p)]
        if real:
            return real
        if parents and not event.has_nan and self._carried(event):
            return parents
        return []

    def _carried(self, event: Event) -> bool:
        """Are this event's infinities only those that came in?"""
        up = any(s.pos_inf for s in event.inputs)
        down = any(s.neg_inf for s in event.inputs)
        out_up = any(s.pos_inf for s in event.outputs)
        out_down = any(s.neg_inf for s in event.outputs)
        flips = event.name in (
            "neg",
            "mul",
            "div",
            "rsub",
            "sub",
            "mean",
            "sum",
            "nll_loss_forward",
        )
        return (up >= out_up and down >= out_down) or flips

    def _backward(self, event: Event) -> list[Event]:
        fed = [self.events[parent] for parent, stats in event.fed if stats.bad]
        if fed:
            return fed
        inner = [e for e in map(self.events.__getitem__, event.inner) if e.bad]
        births = [e for e in inner if not self.causes(e)]
        if births:
            return births[:1]
        if event.forward is None or any(stats.bad for stats in event.inputs):
            return []
        forward = self.events[event.forward]
        if forward.bad and not self.meant(forward):
            return [forward]
        return [parent for parent in self._bad_parents(forward) if not self.meant(parent)]

    def _bad_parents(self, event: Event) -> list[Event]:
        """Whose bad values this event read; `.item()` hands on what it read itself."""
        found = dict.fromkeys(parent for parent, stats in event.fed if stats.bad)
        if event.phase == "source":
            found = dict.fromkeys(event.parents)
        return [parent for parent in map(self.events.__getitem__, found) if _blamable(parent)]

    def meant(self, event: Event) -> bool:
        """Infinities that were written down (a mask, a start value) and what only carries them."""
        todo = [event]  # a stack of our own: a running sum may carry an infinity a thousand times
        while todo:
            last = todo[-1]
            open_ = [p for p in self._asked(last) if p.index not in self._meant]
            if open_:
                todo.extend(open_)
                continue
            todo.pop()
            self._meant[last.index] = self._is_meant(last)
        return self._meant[event.index]

    def _asked(self, event: Event) -> list[Event]:
        """The earlier events on which `_is_meant` depends; none once that is known."""
        if event.index in self._meant or not event.bad or event.has_nan or event.phase == "source":
            return []
        return [parent for parent in self._bad_parents(event) if parent.index < event.index]

    def _is_meant(self, event: Event) -> bool:
        if not event.bad or event.has_nan:
            return False
        if event.phase == "source":
            return event.kind in ("constant", "buffer") or _mask_like(event)
        if event.phase != "forward" or not self._carried_or_written(event):
            return False
        return all(self._meant.get(p.index, False) for p in self._bad_parents(event))

    def _carried_or_written(self, event: Event) -> bool:
        written = event.tool is not None and event.tool.made
        scalar = any(math.isinf(value) for value in event.scalars)
        if written and (scalar or event.inputs):
            return True
        if scalar and event.name in ("where", "clamp", "clamp_min", "clamp_max"):
            return True
        return event.bad_input and self._carried(event)


def _blamable(event: Event) -> bool:
    if event.bad or event.tool is None:
        return True
    return event.tool.read or event.tool.unset


def _mask_like(event: Event) -> bool:
    """Only zeros and -inf: an additive mask."""
    return all(
        s.neg_inf and not s.pos_inf and not s.nan and s.zero == s.size - s.bad
        for s in event.outputs
    )
