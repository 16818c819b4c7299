"""The tracer's score on the corpus: every fault named, every repaired or healthy form silent.

What the tracer made of a set that it had never seen stands in the docstring of the set's folder.
"""

import pytest

from labkit.probes.verdict import Verdict
from tests.probes.corpus.rivals import RIVALS, ask, judge
from tests.probes.corpus.run import run, score
from tests.probes.corpus.sets import ALL, SETS

FAULTS = tuple(case for case in ALL if not case.healthy)
PROGRAMS, CONTROLS = 80, 25  # what a corpus of this kind must hold at least


def named(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def test_the_corpus_is_large_enough_and_names_its_sources():
    assert len(SETS["built"]) >= PROGRAMS
    assert sum(case.healthy for case in SETS["built"]) >= CONTROLS
    assert len({case.name for case in ALL}) == len(ALL)
    assert all(len(case.source) > 10 for case in ALL)
    assert len({case.source for case in SETS["grist"]}) == 22


@named(FAULTS)
def test_the_fault_is_named(case):
    report = run(case, broken=True)
    assert report.verdict.value in case.verdict.split(), str(report)
    found = score(case, report)
    assert found.op, f"op: {report.culprit.op}, truth {case.op}"
    assert found.line, f"line: {report.culprit.line}, truth {sorted(case.lines)}"
    assert found.parameters, f"harmed: {[f.name for f in report.harmed]}, truth {case.harmed}"


@named(ALL)
def test_the_repaired_form_and_the_control_are_silent(case):
    for broken in {False, case.healthy}:
        report = run(case, broken)
        assert report.verdict is Verdict.HEALTHY, str(report)
        assert not report.harmed


@named(FAULTS)
def test_the_story_holds_together(case):
    report = run(case, broken=True)
    culprit, card = report.culprit, report.explain()
    assert culprit.source.endswith("# fault") or not culprit.source
    assert str(report).startswith(f"{report.verdict}: ")
    assert all(text and not text.endswith(".") for text in card.parts)
    assert len(str(card).splitlines()) == 5
    for op in report.ops:
        assert all(parent < op.index for parent in op.parents)
    if report.verdict in (Verdict.NAN, Verdict.INF):
        assert report.chain[0].event == "born"
        assert report.ops[report.chain[0].position].harmful


def test_two_runs_tell_the_same_story():
    for case in FAULTS[::7]:
        assert str(run(case, True)) == str(run(case, True))


@pytest.mark.parametrize("name", RIVALS)
def test_every_rival_sees_something_and_misses_much(name):
    births = [case for case in SETS["built"] if case.group == "birth"]
    scores = [judge(case, ask(name, case, True)) for case in births]
    assert any(found.flagged for found in scores)
    assert sum(found.line for found in scores) < len(scores)
