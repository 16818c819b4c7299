"""Parameters that learn by being written from others that are trained."""

from labkit.probes.flow import Flow


def copied(session, flow: Flow, leaf: int) -> bool:
    """Did the program write this leaf from what was trained, and leave no optimizer to it?

    So learn the averages of a model, target networks, slow weights and federated servers.
    """
    if leaf in session.training.members():
        return False
    writers = [e.index for e in flow.events if leaf in e.mutates and e.phase == "forward"]
    if not writers:
        return False
    trained = {id(arrival.leaf) for arrival in session.gradients.arrivals}
    above = flow._spread(writers, flow._before)
    sources = (flow.events[i] for i in above if flow.events[i].phase == "source")
    return any(id(event.leaf) in trained for event in sources if event.leaf is not None)
