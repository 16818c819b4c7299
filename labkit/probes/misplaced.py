"""``module.requires_grad = True`` sets an attribute that nobody reads: all stays frozen."""

from labkit.probes.finding import Finding
from labkit.probes.flow import Flow
from labkit.probes.verdict import Verdict


def misplaced(session) -> set[int]:
    """Ids of the parameters of a module on which the flag was set, where all are frozen."""
    modules = (module for _, root in session.tape.roots for module in root.modules())
    flagged = (module for module in modules if vars(module).get("requires_grad") is True)
    below = [list(module.parameters()) for module in flagged]
    return {id(p) for some in below for p in some if not any(q.requires_grad for q in some)}


def still_frozen(flow: Flow, leaf: int) -> Finding:
    """The finding of one such parameter; no line ran that could be named, but its first use."""
    event = flow.events[flow.sources[leaf]] if leaf in flow.sources else None
    remark = "it was set on a module, where it does nothing: call requires_grad_()"
    finding = Finding(Verdict.SEVERED, event, [], remark, op="requires_grad", phase="forward")
    finding.at, finding.leaves = event.index if event else 0, {leaf}
    return finding
