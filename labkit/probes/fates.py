"""What became of each parameter."""

from dataclasses import replace

import torch

from labkit.probes.harm import scaled_steps
from labkit.probes.misplaced import misplaced
from labkit.probes.report import Fate


def fates(session) -> tuple[list[Fate], dict[str, int]]:
    """The fate of every parameter to report, and the id behind each name."""
    named = reported(session)
    found = [_fate(session, name, leaf) for name, leaf in named.items()]
    return found, {name: id(leaf) for name, leaf in named.items()}


def reported(session) -> dict:
    """Names and tensors: the models' parameters, or every trainable leaf that was used."""
    tape, misled = session.tape, misplaced(session)
    found = {}
    for prefix, root in tape.roots:
        if not session.models or root in session.models:
            for name, leaf in root.named_parameters(prefix=prefix):
                wanted = leaf.requires_grad or id(leaf) in misled
                if wanted or _was_trainable(session, leaf):
                    found[name] = leaf
    known = {id(leaf) for leaf in found.values()}
    for index in tape.leaves.values():
        event = tape.events[index]
        if id(event.leaf) not in known and (not session.models or _inside(session, event)):
            name = session.hidden.get(id(event.leaf)) or tape.names[id(event.leaf)][1]
            name = name if name not in found else f"{name}#{index}"
            found[name] = event.leaf
            known.add(id(event.leaf))
    return found


def _was_trainable(session, leaf) -> bool:
    return any(note.tensor == id(leaf) and note.value is not None for note in session.calls.notes)


def _inside(session, event) -> bool:
    """Does a running module of the user's hide this leaf in a list, a dict or a plain tensor?"""
    around = event.around or tuple(m for root in session.models for m in root.modules())
    if not any(root in around for root in session.models):
        return False
    for module in around:
        for name, value in vars(module).items():
            if not name.startswith("_") and (where := _within(value, event.leaf, name)):
                session.hidden[id(event.leaf)] = where
                return True
    return False


def _within(value, leaf, path: str) -> str:
    """The path to a leaf inside plain containers, "" if it is not there."""
    if value is leaf:
        return path
    if isinstance(value, torch.Tensor):
        return path if _cast_of(value, leaf) else ""
    if isinstance(value, torch.nn.Module):
        found = next((n for n, p in value.named_parameters() if p is leaf), None)
        return f"{path}.{found}" if found else ""
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return next((w for k, v in pairs if (w := _within(v, leaf, f"{path}.{k}"))), "")
    return ""


def _cast_of(value, leaf) -> bool:
    """Was this tensor made from the leaf by a cast or a copy alone?"""
    node = value.grad_fn
    while node is not None and type(node).__name__ in ("ToCopyBackward0", "CloneBackward0"):
        node = node.next_functions[0][0]
    return node is not value.grad_fn and getattr(node, "variable", None) is leaf


def thrown_away(parameters: list[Fate]) -> list[Fate]:
    """Where nothing was harmed: gradients that were not finite were thrown away by the program."""
    why = "its gradient was not finite, and no update took it"
    bad = (fate.word in ("nan", "inf") and not fate.excused for fate in parameters)
    return [replace(f, excused=why) if b else f for f, b in zip(parameters, bad, strict=True)]


def _fate(session, name: str, leaf) -> Fate:
    arrivals = [a for a in session.gradients.arrivals if a.leaf is leaf]
    shape = tuple(leaf.shape)
    if not arrivals or (all(a.taken for a in arrivals) and _missed(session, leaf)):
        return Fate(name, shape, "none", None)
    forgiven = scaled_steps(session)
    counted = [a for a in arrivals if a.step not in forgiven] or arrivals
    last = arrivals[-1]
    return Fate(name, shape, _word(counted), last.histogram, last.norm)


def _missed(session, leaf) -> bool:
    """Did its optimizer find nothing in .grad, whenever it stepped?"""
    moves = [move for move in session.training.moves if move.leaf is leaf]
    return bool(moves) and all(move.gradient is None for move in moves)


def _word(arrivals) -> str:
    if any(a.stats.nan for a in arrivals):
        return "nan"
    if any(a.stats.bad for a in arrivals):
        return "inf"
    return "zero" if all(a.stats.large == 0 for a in arrivals) else "ok"
