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
                    known = tape.known.get(id(buffer))
                    writer = tape.storages[known.key][1] if known else -1
                    event = max(known.event, writer) if known else -1
                    self.buffers.append((name, event, stats))
        self.frozen = {
            id(tensor)
            for kind, _, tensor in tape.names.values()
            if kind != "buffer" and not tensor.requires_grad
        }
