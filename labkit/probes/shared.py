"""A parameter that two share: one froze it as its teacher, the other wants to train it."""

from labkit.probes.flow import Flow


def shared(session, flow: Flow, note, leaf: int) -> bool:
    """Was it frozen after an optimizer took it in, and is it teacher and pupil of one loss?

    The teacher's reading runs without a graph, the pupil's with one, and both reach a loss.
    """
    if not _taken_before(session, note, leaf):
        return False
    written = set(flow.writers.get(leaf, ()))
    states = written.union(flow.all_sources.get(leaf, ()))
    readers = {i for state in states for i in flow.children.get(state, ())} - written
    return {flow.events[i].graph for i in readers & flow.above} == {True, False}


def _taken_before(session, note, leaf: int) -> bool:
    """Did an optimizer hold it already when it was switched off?"""
    when = session.calls.notes.index(note)
    return any(
        notes <= when and any(id(p) == leaf for g in optimizer.param_groups for p in g["params"])
        for optimizer, _, _, notes in session.calls.builders.values()
    )
