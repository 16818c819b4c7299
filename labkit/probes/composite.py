"""Functions that torch takes apart: what they write down bears the name that the user wrote."""

from labkit.probes.finding import Finding
from labkit.probes.words import number


def as_written(session, finding: Finding) -> Finding:
    """Name the user's function where an op is to blame that nobody wrote.

    ``torch.logdet`` of a matrix with a negative determinant is such a one: it chooses a NaN that
    it wrote down itself. A call that ran several operators is remembered by `Calls`.
    """
    event = finding.event
    made = event is not None and event.phase == "forward" and event.tool and event.tool.made
    if not made or event.parents or finding.op:
        return finding
    spans = [span for span in session.calls.spans if span[0] <= event.index < span[1]]
    if not spans or spans[-1][2] == event.name:
        return finding
    begin, _, name = spans[-1]
    finding.op, finding.remark = name, _why(session.tape.events[begin : event.index])
    return finding


def _why(events) -> str:
    """What went into a call whose result was written down."""
    for event in events:
        if event.name == "_linalg_slogdet" and event.outputs[0].low < 0:
            return "the determinant is negative"
        if event.inputs and not event.inputs[0].bad:
            low, high = event.inputs[0].low, event.inputs[0].high
            return f"outside of its domain, input from {number(low)} to {number(high)}"
    return "outside of its domain"
