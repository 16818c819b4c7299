"""Run a corpus program under the tracer and compare with its ground truth."""

import re
import warnings
from dataclasses import dataclass

import torch

from labkit import trace
from labkit.probes.report import Report
from labkit.probes.verdict import Verdict
from tests.probes.corpus.case import Case, Program


@dataclass(frozen=True)
class Score:
    """What of the truth a detector told."""

    flagged: bool
    op: bool
    line: bool
    parameters: bool


def run(case: Case, broken: bool) -> Report:
    """Trace one form of a program."""
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _build(case, broken) if case.building else _trace(case, case.make(broken))


def _trace(case: Case, program: Program) -> Report:
    options = {"shadow": True} if case.shadow else {}
    return trace(program.step, program.model, program.optimizers, program.steps, **options)


def _build(case: Case, broken: bool) -> Report:
    with trace() as tracing:
        program = case.make(broken)
        tracing.watch(program.model, program.optimizers)
        for _ in range(program.steps):
            program.step()
            tracing.step()
    return tracing.report


def plain(name: str) -> str:
    """``SqrtBackward0`` and ``sqrt_`` are both ``sqrt``."""
    return re.sub(r"Backward\d*$", "", name).replace("_", "").lower()


def score(case: Case, report: Report) -> Score:
    """Compare a report with the truth of the broken form."""
    culprit = report.culprit
    harmed = {fate.name for fate in report.harmed}
    wanted = {plain(name) for name in case.op}
    return Score(
        flagged=report.verdict is not Verdict.HEALTHY,
        op=culprit is not None and bool({plain(culprit.op), culprit.name.lower()} & wanted),
        line=culprit is not None and culprit.line in case.lines,
        parameters=case.harmed is None or harmed == case.harmed,
    )
