"""Finite, but dead, vanishing, exploding or frozen."""

from dataclasses import replace

from labkit.probes.death import STRAIGHT, death
from labkit.probes.finding import Finding
from labkit.probes.flow import Flow
from labkit.probes.frozen import betrayed, undone, unmoved
from labkit.probes.growth import exploded, vanished
from labkit.probes.report import Fate
from labkit.probes.severed import trainees
from labkit.probes.shadow import inexact
from labkit.probes.unread import unbound


def still(
    session, parameters: list[Fate], leaves: dict[str, int], flow: Flow, sick: bool
) -> list[Finding]:
    """Everything found; fates are worded and excused on the way.

    Where a bad value did harm (`sick`), sizes say nothing and only zeros are looked at.
    """
    looks = () if sick else (undone, betrayed, exploded, inexact, unbound)
    found = [finding for look in looks if (finding := look(session, flow))]
    wanted = trainees(session, leaves)
    for place, fate in enumerate(parameters):
        leaf = leaves[fate.name]
        if fate.word == "zero":
            finding, excuse = death(session, flow, leaf)
            if leaf not in wanted and not excuse:
                finding, excuse = None, "no optimizer holds it"
        elif fate.word == "ok" and not sick:
            finding, excuse, word = _alive(session, flow, leaf, wanted)
            fate = replace(fate, word=word)
        else:
            continue
        parameters[place] = replace(fate, excused=excuse)
        if finding is not None:
            found.append(finding)
    found += _nothing_lives(session, parameters, leaves, flow, wanted)
    reword(found, parameters, leaves)
    return found


def _nothing_lives(session, parameters, leaves, flow: Flow, wanted: set[int]) -> list[Finding]:
    """Each zero has its excuse, but a loss of second derivatives alone trains nothing."""
    mine = [(place, fate) for place, fate in enumerate(parameters) if leaves[fate.name] in wanted]
    flat = [leaves[fate.name] for _, fate in mine if fate.excused == STRAIGHT]
    if not flat or any(fate.word == "ok" for _, fate in mine):
        return []
    for place, fate in mine:
        parameters[place] = replace(fate, excused="")
    findings = (death(session, flow, leaf, alone=True)[0] for leaf in flat)
    return [finding for finding in findings if finding is not None][:1]


def _alive(session, flow: Flow, leaf: int, wanted: set[int]):
    finding, excuse = vanished(flow, leaf)
    if finding is not None or excuse:
        return finding, excuse, "vanishing"
    finding, excuse = unmoved(session, flow, leaf, wanted)
    return finding, excuse, "not updated" if finding is not None or excuse else "ok"


def reword(found: list[Finding], parameters: list[Fate], leaves: dict[str, int]) -> None:
    """Parameters that a finding names by itself."""
    for finding in found:
        for place, fate in enumerate(parameters):
            word = finding.spoilt.get(leaves[fate.name])
            if word and fate.word not in ("nan", "inf"):
                parameters[place] = replace(fate, word=word, excused="")
    words = {"exploding": "exploding", "severed": "none", "dead": "zero"}
    for finding in found:
        word = words.get(finding.verdict.value)
        for place, fate in enumerate(parameters):
            fits = fate.word in ("ok", "not updated", word)
            if word and fits and leaves[fate.name] in finding.leaves:
                parameters[place] = replace(fate, word=word, excused="")
