"""State at the end of a training step."""

from labkit.probes.measure import measure
from labkit.probes.stats import Stats


def final_gradients(session) -> dict[int, Stats | None]:
    """What is left on each leaf that got a gradient in this step."""
    stats = session.tape.stats
    return {
        id(arrival.leaf): None if arrival.leaf.grad is None else stats(arrival.leaf.grad)
        for arrival in session.gradients.arrivals
        if arrival.step == session.tape.step
    }


def _spoiler(tape, buffer) -> int:
    """The last event that wrote something bad, even where another part was written later."""
    known = tape.known.get(id(buffer))
    if known is None:
        return -1
    memory = known.memory
    return memory.spoiler if memory.spoiler > known.event else max(known.event, memory.writer)


class End:
    """State at the end of a step: gradients as they are left, buffers as they are."""

    def __init__(self, session):
        tape = session.tape
        self.step = tape.step
        self.at = len(tape.events)
        kept, session.kept_gradients = session.kept_gradients, None
        self.gradients = final_gradients(session) if kept is None else kept
        self.buffers: list[tuple[str, int, Stats]] = []
        for prefix, root in tape.roots:
            for name, buffer in root.named_buffers(prefix=prefix):
                stats = measure(buffer, counted=0)
                if stats.bad:
                    self.buffers.append((name, _spoiler(tape, buffer), stats))
        self.frozen = {
            id(tensor)
            for kind, _, tensor in tape.names.values()
            if kind != "buffer" and not tensor.requires_grad
        }
