"""Which events lie below a tensor, which above a loss."""

from collections.abc import Iterable

from labkit.probes.events import Event


class Flow:
    """The forward events as a graph that can be walked in both directions."""

    def __init__(self, session):
        self.events: list[Event] = session.tape.events
        self.losses = {index for _, index, _ in session.calls.roots}
        self.children: dict[int, list[int]] = {}
        self.sources: dict[int, int] = {}  # id of a leaf -> its first source event
        for event in self.events:
            if event.phase == "source" and event.leaf is not None:
                self.sources.setdefault(id(event.leaf), event.index)
            for parent in event.parents:
                self.children.setdefault(parent, []).append(event.index)
        self.above = self._spread(self.losses, lambda i: self.events[i].parents)

    def below(self, start: int) -> set[int]:
        """Everything that depends on an event."""
        return self._spread([start], lambda i: self.children.get(i, ()))

    def to_loss(self, start: int) -> set[int]:
        """Everything on a way from an event to a loss."""
        return self.below(start) & self.above

    def way(self, start: int, inside: set[int]) -> list[Event]:
        """One way from an event down to a loss."""
        path = [start]
        while path[-1] not in self.losses:
            step = [c for c in self.children.get(path[-1], ()) if c in inside and c > path[-1]]
            if not step:
                break
            path.append(min(step))
        return [self.events[index] for index in path]

    @staticmethod
    def _spread(start: Iterable[int], neighbours) -> set[int]:
        seen, todo = set(start), list(start)
        while todo:
            for other in neighbours(todo.pop()):
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        return seen
