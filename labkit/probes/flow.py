"""Which events lie below a tensor, which above a loss."""

from collections.abc import Callable, Iterable

from labkit.probes.events import Event

_BLENDS = {"lerp_", "_foreach_lerp_", "add_", "_foreach_add_"}  # what was there before counts too


class Flow:
    """The forward events as a graph that can be walked in both directions."""

    def __init__(self, session):
        self.events: list[Event] = session.tape.events
        self.losses = {root.event for root in session.calls.roots}
        self.children: dict[int, list[int]] = {}
        self.sources: dict[int, int] = {}  # id of a leaf -> its first source event
        self.all_sources: dict[int, list[int]] = {}
        self.writers: dict[int, list[int]] = {}  # id of a tensor -> the events that changed it
        for event in self.events:
            if event.phase == "source" and event.leaf is not None:
                self.sources.setdefault(id(event.leaf), event.index)
                self.all_sources.setdefault(id(event.leaf), []).append(event.index)
            for tensor in event.mutates:
                self.writers.setdefault(tensor, []).append(event.index)
            for parent in event.parents:
                self.children.setdefault(parent, []).append(event.index)
        self.rewritten: dict[int, set[int]] = {}  # the events that changed leaves, and which
        for leaf in self.sources:
            for index in self.writers.get(leaf, ()):
                self.rewritten.setdefault(index, set()).add(leaf)
        self.latest = {(a.step, id(a.leaf)): a for a in session.gradients.arrivals}
        self.largest: dict[int, float] = {}  # the largest entry of a step's gradients
        self.of_leaf: dict[int, list] = {}  # what a leaf received, where its whole step is finite
        self._over: dict[frozenset, set[int]] = {}
        self.flat = {event.index for event in self.events if _flat(event)}
        self._sum_up({step for (step, _), a in self.latest.items() if a.stats.bad})
        self.above = spread(self.losses, self._before)

    def _sum_up(self, sick: set[int]) -> None:
        for (step, leaf), arrival in self.latest.items():
            self.largest[step] = max(self.largest.get(step, 0.0), arrival.stats.large)
            if step not in sick:
                self.of_leaf.setdefault(leaf, []).append(arrival)

    def _before(self, index: int) -> tuple[int, ...]:
        return self.events[index].parents

    def _after(self, index: int) -> list[int]:
        """What reads an event's result; an update of a parameter starts a new story."""
        after = self.children.get(index, ())
        return [i for i in after if self.events[i].phase in ("forward", "backward")]

    def below(self, leaf: int) -> set[int]:
        """Everything that depends on a leaf."""
        return spread(self.all_sources.get(leaf, ()), self._after)

    def after(self, event: int) -> set[int]:
        """Everything that depends on the result of an event."""
        return spread([event], self._after)

    def over(self, losses: Iterable[int]) -> set[int]:
        """What these losses depend on; how a leaf got its value is another story."""
        asked = frozenset(losses)
        if asked not in self._over:
            self._over[asked] = spread(asked, self._above)
        return self._over[asked]

    def _above(self, index: int) -> tuple[int, ...]:
        return () if self.events[index].phase == "source" else self.events[index].parents

    def backward_of(self, forward: Event) -> Event | None:
        """The first node that ran backward for this op."""
        nodes = (e for e in self.events if e.phase == "backward" and e.forward == forward.index)
        return next(nodes, None)

    def to_loss(self, leaf: int) -> set[int]:
        """Everything on a way from a leaf to a loss."""
        return self.below(leaf) & self.above

    def averaged(self, leaf: int) -> bool:
        """Does it enter the losses only as a part of a running average, which is another leaf?"""
        own = {leaf}

        def elsewhere(index: int) -> set[int]:
            return {o for o in self.rewritten.get(index, own) - own if self._weight(o)}

        read = spread(
            self.all_sources.get(leaf, ()),
            lambda index: [i for i in self._after(index) if not elsewhere(i)],
        )
        if read & self.losses or not self.to_loss(leaf):
            return False
        written = {i for index in read for i in self._after(index)}
        return any(self._blends(i, o) for i in written for o in elsewhere(i))

    def _weight(self, leaf: int) -> bool:
        return self.events[self.sources[leaf]].kind == "parameter"

    def _blends(self, writer: int, leaf: int) -> bool:
        """Is a part of what this op writes into a leaf what stood there before?"""
        event = self.events[writer]
        return event.name in _BLENDS or bool({p for p, _ in event.fed[1:]} & self.below(leaf))

    def way(self, start: int, inside: set[int]) -> list[Event]:
        """One way from an event down to a loss."""
        path = [start]
        while path[-1] not in self.losses:
            step = [c for c in self.children.get(path[-1], ()) if c in inside and c > path[-1]]
            if not step:
                break
            path.append(min(step))
        return [self.events[index] for index in path]


def _flat(event: Event) -> bool:
    """A normalisation that found no spread in any of its groups: all are divided by root eps."""
    if event.name not in ("native_group_norm", "native_layer_norm") or len(event.outputs) < 3:
        return False
    scale = event.outputs[2]
    return scale.size > 1 and scale.low == scale.high > event.inputs[0].large


def spread(start: Iterable[int], neighbours: Callable[[int], Iterable[int]]) -> set[int]:
    """These events and all that can be reached from them."""
    seen, todo = set(start), list(start)
    while todo:
        for other in neighbours(todo.pop()):
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return seen
