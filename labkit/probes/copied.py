"""Parameters that learn by being written from others that are trained."""

from labkit.probes.flow import Flow


def copied(session, flow: Flow, leaf: int) -> bool:
    """Did the program write this leaf from what was trained, and leave no optimizer to it?

    So learn the averages of a model, target networks, slow weights and federated servers.
    """
    if leaf in session.training.members():
        return False
    writers = [i for i in flow.writers.get(leaf, ()) if flow.events[i].phase == "forward"]
    if not writers:
        return False
    trained = {id(arrival.leaf) for arrival in session.gradients.arrivals}
    return any(id(flow.events[index].leaf) in trained for index in flow.over(writers))
