"""Finite, but dead, vanishing, exploding or frozen."""

from dataclasses import replace

from labkit.probes.death import death
from labkit.probes.finding import Finding
from labkit.probes.flow import Flow
from labkit.probes.report import Fate


def still(session, parameters: list[Fate], leaves: dict[str, int], flow: Flow) -> Finding | None:
    """The gravest of these findings; fates that are no fault get their excuse."""
    found: list[Finding] = []
    for place, fate in enumerate(parameters):
        if fate.word == "zero":
            finding, excuse = death(session, flow, leaves[fate.name])
            parameters[place] = replace(fate, excused=excuse)
            if finding is not None:
                found.append(finding)
    return min(found, key=lambda finding: finding.at, default=None)
