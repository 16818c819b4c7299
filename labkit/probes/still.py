"""Finite, but dead, vanishing, exploding or frozen."""

from dataclasses import replace

from labkit.probes.death import death
from labkit.probes.finding import Finding
from labkit.probes.flow import Flow
from labkit.probes.frozen import betrayed, undone, unmoved
from labkit.probes.growth import exploded, vanished
from labkit.probes.report import Fate
from labkit.probes.severed import trainees
from labkit.probes.shadow import inexact


def still(
    session, parameters: list[Fate], leaves: dict[str, int], flow: Flow, sick: bool
) -> list[Finding]:
    """Everything found; fates are worded and excused on the way.

    Where a bad value did harm (`sick`), sizes say nothing and only zeros are looked at.
    """
    looks = () if sick else (undone, betrayed, exploded, inexact)
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
    reword(found, parameters, leaves)
    return found


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
            if word and fate.word in ("ok", "not updated") and leaves[fate.name] in finding.leaves:
                parameters[place] = replace(fate, word=word, excused="")
