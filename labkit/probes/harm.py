"""Where bad values do harm: loss, gradient, parameter, buffer, optimizer state."""

from dataclasses import dataclass

from labkit.probes.stats import Stats

SKIPS = 3  # steps that a loss scaler may skip in a row before that is a fault


@dataclass
class Sink:
    """A place where a bad value ended: it can do harm from there."""

    at: int  # number of events when the harm was done
    event: int  # the event that wrote the bad value
    stats: Stats
    what: str  # loss, gradient, parameter, buffer, state; built: bad when it was made
    leaf: int | None = None  # id of the parameter


def sinks(session) -> list[Sink]:
    """Every place where a bad value ended, in no order."""
    return [
        *_losses(session),
        *_gradients(session),
        *_parameters(session),
        *_buffers(session),
        *_states(session),
    ]


def _losses(session) -> list[Sink]:
    roots, scaled = session.calls.roots, scaled_steps(session)
    bad = [root for root in roots if root.stats.bad and root.step not in scaled]
    return [Sink(root.event, root.event, root.stats, "loss") for root in bad]


def _gradients(session) -> list[Sink]:
    found = []
    moved = {(move.step, id(move.leaf)) for move in session.training.moves}
    for move in session.training.moves:
        if move.gradient is not None and move.gradient.bad:
            found.append(Sink(move.origin, move.origin, move.gradient, "gradient", id(move.leaf)))
    ends = {end.step: end for end in session.ends}
    scaled = scaled_steps(session)
    stepping = bool(session.training.stepped)
    for arrival in session.gradients.arrivals:
        where = (arrival.step, id(arrival.leaf))
        if where in moved or not arrival.stats.bad or arrival.step in scaled:
            continue
        end = ends.get(arrival.step)
        left = end.gradients.get(id(arrival.leaf)) if end else arrival.stats
        if not stepping or (left is not None and left.bad):
            found.append(
                Sink(arrival.event, arrival.event, arrival.stats, "gradient", id(arrival.leaf))
            )
    return found


def scaled_steps(session) -> set[int]:
    """Steps that a loss scaler skipped; forgiven unless it skips for ever."""
    checked = {
        event.step
        for event in session.tape.events
        if event.name == "_amp_foreach_non_finite_check_and_unscale_"
    }
    stepped = {step for step, _ in session.training.stepped}
    return set() if len(checked) >= SKIPS and not checked & stepped else checked - stepped


def _parameters(session) -> list[Sink]:
    found, leaves = [], session.tape.leaves
    for event in session.tape.events:
        if event.mutates and event.bad:
            for slot, (leaf, stats) in enumerate(zip(event.mutates, event.outputs, strict=False)):
                if leaf in leaves and stats.bad and not _kept(event, slot):
                    found.append(Sink(event.index, event.index, stats, "parameter", leaf))
    return found + _built(session)


def _kept(event, slot: int) -> bool:
    """Did an update only leave the infinities where they were (a forbidden transition)?"""
    if len(event.inputs) < len(event.mutates) or event.outputs[slot].nan:
        return False
    before, after = event.inputs[slot], event.outputs[slot]
    rest = event.inputs[len(event.mutates) :]
    same = (before.pos_inf, before.neg_inf) == (after.pos_inf, after.neg_inf) and not before.nan
    return same and not any(stats.bad for stats in rest)


def _built(session) -> list[Sink]:
    """Trainable leaves that the traced code computed, and that were bad from the start."""
    events, found = session.tape.events, []
    for index in session.tape.leaves.values():
        source = events[index]
        bad = next((stats for stats in source.outputs if stats.bad), None)
        made = [events[parent] for parent in source.parents]
        if bad and any(maker.bad and maker.phase == "forward" for maker in made):
            found.append(Sink(source.index, source.index, bad, "built", id(source.leaf)))
    return found


def _buffers(session) -> list[Sink]:
    found = []
    for end in session.ends:
        for name, event, stats in end.buffers:
            if event >= 0 and not session.settled_buffers.get(name, False):
                found.append(Sink(event, event, stats, "buffer"))
    return found


def _states(session) -> list[Sink]:
    return [Sink(event, event, stats, "state") for _, event, _, stats in session.training.states]
