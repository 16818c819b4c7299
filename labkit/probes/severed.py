"""Parameters that the loss depends on, but that no graph leads to: find the cut."""

from dataclasses import replace

from labkit.probes.copied import copied
from labkit.probes.events import Event
from labkit.probes.finding import Finding
from labkit.probes.flow import Flow
from labkit.probes.misplaced import misplaced, still_frozen
from labkit.probes.report import Fate
from labkit.probes.shared import shared
from labkit.probes.unanswered import unanswered
from labkit.probes.unjoined import unjoined
from labkit.probes.unread import unread
from labkit.probes.verdict import Verdict

_WORDS = {
    "detach": "a detached copy carries no gradient back",
    "_local_scalar_dense": "a Python number carries no gradient back",
    "tensor": "torch.tensor copies values, not their history",
    "numpy": "numpy carries no gradient back",
    "Parameter": "a new Parameter takes the values of its tensor, not their history",
    "data": "what is written through .data has no history",
    "tolist": "a Python list carries no gradient back",
}
_LOGGED = {"item", "numpy", "tolist"}
_READS = {"embedding", "index", "gather", "index_select", "take", "masked_select"}


def severed(session, parameters: list[Fate], leaves: dict[str, int], flow: Flow) -> Finding | None:
    """The first cut between a parameter that should be trained and the loss."""
    trained, misled = trainees(session, leaves), misplaced(session)
    found: list[Finding] = _switched_off(session, flow, parameters, leaves)
    for place, fate in enumerate(parameters):
        leaf = leaves[fate.name]
        if fate.word != "none" or any(leaf in finding.leaves for finding in found):
            continue
        if leaf in misled:
            found.append(still_frozen(flow, leaf))
            continue
        if session.ends and leaf in session.ends[-1].frozen:
            parameters[place] = replace(fate, excused="frozen on purpose")
            continue
        if _by_hand(session, leaf):
            parameters[place] = replace(fate, excused="its gradient was written by hand")
            continue
        if copied(session, flow, leaf):
            parameters[place] = replace(fate, excused="written from what was trained")
            continue
        finding, excuse = _examine(session, flow, leaf, leaf in trained)
        if finding is None:
            parameters[place] = replace(fate, excused=excuse)
        else:
            found.append(finding)
    first = min(found, key=lambda finding: finding.at, default=None)
    return None if first is not None and _only_logged(session, first) else first


def _only_logged(session, finding: Finding) -> bool:
    """A number was read, but no backward ran at all: its absence is the fault, not the log."""
    tried = session.calls.backwards or session.gradients.arrivals
    return finding.op in _LOGGED and bool(session.training.stepped) and not tried


def trainees(session, leaves: dict[str, int]) -> set[int]:
    """What is meant to be trained: what an optimizer holds, or else everything."""
    members = session.training.members()
    wanted = members & set(leaves.values())
    return wanted or set(leaves.values())


def _switched_off(session, flow: Flow, parameters: list[Fate], leaves: dict) -> list[Finding]:
    """requires_grad_(False) that was never taken back, on what should be trained."""
    last: dict[int, object] = {}
    for note in session.calls.notes:
        if note.value is not None:
            last[note.tensor] = note
    members, found = session.training.members(), []
    final = session.ends[-1] if session.ends else None
    for place, fate in enumerate(parameters):
        leaf = leaves[fate.name]
        note = last.get(leaf)
        if note is None or note.value or final is None or leaf not in final.frozen:
            continue
        if (members and leaf not in members) or _on_purpose(session, flow, note, leaf):
            continue
        parameters[place] = replace(fate, word="none")
        source = flow.sources.get(leaf)
        finding = Finding(Verdict.SEVERED, flow.events[source] if source is not None else None)
        finding.op, finding.phase, finding.place = "requires_grad_", "forward", note.place
        finding.remark, finding.at = "it was switched off and never on again", note.at
        if shared(session, flow, note, leaf):
            finding.remark = "the teacher that it freezes shares it: give that one a deep copy"
        finding.leaves = {leaf}
        found.append(finding)
    return found


def _on_purpose(session, flow: Flow, note, leaf: int) -> bool:
    """Switched off before it ever had a gradient; or one came after all; or too early to tell."""
    mine = [a.event for a in session.gradients.arrivals if id(a.leaf) == leaf]
    if not mine and shared(session, flow, note, leaf):
        return False
    if not mine or min(mine) > note.at or max(mine) > note.at:
        return True
    if any(n.tensor == leaf and n.value is True for n in session.calls.notes):
        return True  # it is switched on again, for the player whose turn it is
    if len(session.ends) > 1 and flow.events[max(mine)].step == len(session.ends) - 1:
        return True  # the last step trained it before
    backward = any(a.event > note.at for a in session.gradients.arrivals)
    return not backward and len(session.ends) > 1


def _examine(session, flow: Flow, leaf: int, wanted: bool) -> tuple[Finding | None, str]:
    source = flow.sources.get(leaf)
    if source is None:
        return None, "not used in the traced steps"
    if not wanted:
        return None, "no optimizer holds it"
    if flow.averaged(leaf):
        return None, "only its average enters a loss"
    inside = flow.to_loss(leaf)
    own = flow.writers.get(leaf, ())  # how a leaf got its values takes no gradient from it
    cuts = sorted(index for index in inside if flow.events[index].cut and index not in own)
    cuts = cuts or sorted(index for index in inside if _takes_a_shape(flow.events[index]))
    if cuts and _inference(session, flow, inside):
        return None, "no backward ran, and none could"
    if cuts:
        finding = cut_at(flow, _likeliest(session, flow, leaf, cuts), inside)
        finding.leaves = {leaf}
        return finding, ""
    if finding := unanswered(session, flow, leaf, inside):
        finding.leaves = {leaf}
        return finding, ""
    if inside - set(flow.all_sources[leaf]):
        return None, "no backward ran from a loss that it enters"
    below = flow.below(leaf)
    cuts = sorted(i for i in below if flow.events[i].cut)
    if cuts and _inference(session, flow, below):
        return None, "no backward ran, and none could"
    if cuts and _loss_stands_alone(session, flow):
        return cut_at(flow, cuts[0], set(cuts)), ""
    if finding := unread(flow, leaf) or unjoined(session, flow, leaf):
        return finding, ""
    return None, "the loss does not depend on it"


def _by_hand(session, leaf: int) -> bool:
    """No backward reached it, but an optimizer found a gradient on it."""
    moves = [move for move in session.training.moves if id(move.leaf) == leaf]
    return any(move.gradient is not None and move.gradient.large > 0 for move in moves)


def _likeliest(session, flow: Flow, leaf: int, cuts: list[int]) -> int:
    """Of several cuts: before the loss that should train the leaf, a value before an index."""
    aimed = flow.over(_aimed(session, leaf))
    cuts = [index for index in cuts if index in aimed] or cuts
    return min(cuts, key=lambda index: (_chooses(flow, index), index))


def _aimed(session, leaf: int) -> set[int]:
    """The losses whose backward ran since the last optimizer, when the leaf's own one stepped."""
    moves, found = session.training.moves, set()
    for move in moves:
        if id(move.leaf) == leaf:
            before = max((m.event for m in moves if m.began < move.began), default=-1)
            found |= {r.event for r in session.calls.roots if before <= r.at <= move.began}
    return found


def _chooses(flow: Flow, index: int) -> bool:
    """Do its whole numbers or truth values only say which places are read?"""
    if not _counts(flow.events[index]):
        return False
    readers = [flow.events[i] for i in flow.children.get(index, ())]
    return bool(readers) and all(
        reader.name in _READS
        or (reader.tool and reader.tool.moved and _chooses(flow, reader.index))
        for reader in readers
    )


def _counts(event: Event) -> bool:
    kinds = ("float", "bfloat", "complex")
    return bool(event.outputs) and not event.outputs[0].dtype.startswith(kinds)


def _takes_a_shape(event: Event) -> bool:
    """zeros_like and its kin: harmless beside another way to the loss, a cut where it is all."""
    return event.tool is not None and event.tool.shaped


def _inference(session, flow: Flow, inside: set[int]) -> bool:
    """A program that never asked for gradients: everything ran without a graph."""
    if session.given or session.calls.backwards or session.training.stepped:
        return False  # an optimizer or a backward: it meant to train
    events = (flow.events[i] for i in inside)
    return not session.gradients.arrivals and not any(
        event.graph for event in events if event.phase == "forward"
    )


def _loss_stands_alone(session, flow: Flow) -> bool:
    """No traced parameter enters any loss: its values came from outside the graph."""
    sources = (index for found in flow.all_sources.values() for index in found)
    return not any(index in flow.above for index in sources)


def cut_at(flow: Flow, index: int, inside: set[int]) -> Finding:
    """Blame an event that handed no graph on; `inside` are those on its way to the loss."""
    event = flow.events[index]
    op, remark = _named(event)
    finding = Finding(Verdict.SEVERED, event, flow.way(index, inside), remark, op=op, at=index)
    if event.applied is not None:
        function, finding.place = event.applied
        finding.op = function.__name__
        finding.remark = f"what leaves {finding.op} takes no gradient back to what it read"
    return finding


def _named(event: Event) -> tuple[str, str]:
    if event.name in _WORDS:
        name = {"_local_scalar_dense": "item"}.get(event.name, event.name)
        return name, _WORDS[event.name]
    if _takes_a_shape(event):
        return event.name, "it takes the shape alone"
    if not event.graph:
        return "no_grad", "it ran without a graph"
    if _counts(event):
        return event.name, f"its {event.outputs[0].dtype} result has no gradient"
    return event.name, "no graph leaves it"
