"""Run a corpus program under the tracer and compare with its ground truth."""

import re
import warnings
from dataclasses import dataclass

import torch

from labkit import trace
from labkit.probes.report import Report
from labkit.probes.verdict import Verdict
from tests.probes.corpus import (
    backward,
    births,
    controls,
    exam,
    exam_controls,
    exam_controls_again,
    exam_controls_methods,
    exam_controls_more,
    exam_depths,
    exam_functions,
    exam_likelihoods,
    exam_mechanisms,
    exam_numbers,
    exam_schedules,
    exam_science,
    exam_training,
    exam_vision,
    finite,
    fresh,
    fresh_controls,
    fresh_training,
    grist,
    grist_again,
    grist_models,
    held_out,
    held_out_again,
    optimizer,
    severed,
    unseen,
    unseen_again,
    unseen_again_controls,
    unseen_again_training,
    unseen_controls,
    unseen_dead,
    unseen_layers,
    unseen_losses,
    unseen_numbers,
    unseen_quiet,
    unseen_training,
)
from tests.probes.corpus.case import Case, Program

CASES: tuple[Case, ...] = tuple(
    case
    for room in (births, backward, optimizer, severed, finite, controls)
    for case in room.corpus.cases
)
GRIST: tuple[Case, ...] = tuple(
    case for room in (grist, grist_again, grist_models) for case in room.corpus.cases
)
HELD_OUT: tuple[Case, ...] = tuple(held_out.corpus.cases)
HELD_OUT_AGAIN: tuple[Case, ...] = tuple(held_out_again.corpus.cases)
FRESH: tuple[Case, ...] = tuple(
    case for room in (fresh, fresh_training, fresh_controls) for case in room.corpus.cases
)
UNSEEN: tuple[Case, ...] = tuple(
    case
    for room in (
        unseen,
        unseen_losses,
        unseen_layers,
        unseen_training,
        unseen_dead,
        unseen_controls,
        unseen_numbers,
        unseen_quiet,
    )
    for case in room.corpus.cases
)
UNSEEN_AGAIN: tuple[Case, ...] = tuple(
    case
    for room in (unseen_again, unseen_again_training, unseen_again_controls)
    for case in room.corpus.cases
)

EXAM: tuple[Case, ...] = tuple(
    case
    for room in (
        exam,
        exam_vision,
        exam_training,
        exam_schedules,
        exam_science,
        exam_likelihoods,
        exam_mechanisms,
        exam_functions,
        exam_numbers,
        exam_depths,
        exam_controls,
        exam_controls_more,
        exam_controls_methods,
        exam_controls_again,
    )
    for case in room.corpus.cases
)


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
