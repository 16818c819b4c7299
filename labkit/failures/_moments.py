"""A traced step up to a moment: what has not run yet is blank, and the verdict is that so far."""

from dataclasses import replace
from math import nan

from labkit.board import Square
from labkit.failures._spreading import BACKWARD, CELLS, FORWARD, ROWS, STAYS
from labkit.failures._whole import blamed
from labkit.probes.report import Culprit, Fate, Op, Report
from labkit.probes.stats import Stats
from labkit.probes.verdict import Verdict, worst

LAYERS = {  # module of a parameter -> the row of the gradient that has come by when it has one
    "decoder.fc_r": "∇ log_r",
    "decoder.fc_mu": "∇ log_mu",
    "decoder.hidden": "∇ hidden",
    "encoder.fc_logvar": "∇ fc_logvar",
    "encoder.fc_mu": "∇ fc_mu",
    "norm": "∇ fc_mu",
    "encoder.input_layer": "∇ input_layer",
}
FILES = {"nb_operator.py": "likelihood", "likelihood.py": "loss"}  # whose lines name no row


def until(report: Report, moment: int) -> Report:
    """The report of one traced step as it stands after an operation.

    Args:
        report: of a whole step.
        moment: position in `ROWS`.
    """
    rows = _rows(report)
    ops = tuple(_then(op, rows, moment) for op in report.ops)
    culprit = report.culprit
    if culprit and culprit.position is not None and rows[culprit.position] > moment:
        culprit = None
    fates = tuple(fate if _row_of(fate) <= moment else _later(fate) for fate in report.parameters)
    came = [rows[link.position] if link.position is not None else None for link in report.chain]
    whole = fates == report.parameters  # who is harmed is known when all gradients have come
    chain = tuple(
        link
        for link, row in zip(report.chain, came, strict=True)
        if (whole if row is None else row <= moment)
    )
    return replace(report, ops=ops, culprit=culprit, chain=chain, parameters=fates)


def _rows(report: Report) -> list[int]:
    """The row of each op: forward ops by the line that runs, backward ops by what they give."""
    found, now = [], 0
    for op in report.ops:
        if op.phase == "forward":
            named = (i for i, name in enumerate(FORWARD) if f'at("{name}",' in op.source)
            now = next(named, FORWARD.index(FILES[op.file]) if op.file in FILES else now)
            found.append(now)
        elif op.phase == "backward":
            found.append(_given_by(found[op.forward]) if op.forward is not None else len(FORWARD))
        else:
            found.append(0 if op.phase == "source" else ROWS.index("Adam's memory"))
    return found


def _given_by(row: int) -> int:
    """The backward row at which the backward of a forward row has run."""
    behind = [name for name in BACKWARD if FORWARD.index(name) < row]
    return ROWS.index(f"∇ {behind[0]}") if behind else ROWS.index("gradients")


def _then(op: Op, rows: list[int], moment: int) -> Op:
    row = rows[op.index]
    if row > moment:
        return replace(op, outputs=tuple(_blank(s) for s in op.outputs), gradient=None)
    name = FORWARD[row] if row < len(FORWARD) else ""
    came = ROWS.index(f"∇ {name}") if name in BACKWARD else len(FORWARD)
    return op if came <= moment else replace(op, gradient=None)


def _blank(stats: Stats) -> Stats:
    return Stats(stats.shape, stats.dtype, 0)


def _later(fate: Fate) -> Fate:
    return replace(fate, word="none", gradient=None, norm=nan, excused="not yet")


def _row_of(fate: Fate) -> int:
    return ROWS.index(LAYERS[fate.name.rpartition(".")[0]])


def judged(report: Report, column: tuple[Square, ...], moment: int) -> Report:
    """The report with the verdict of a moment.

    The tracer judges whole steps, by what reaches loss or weights. Before a step has ended, what
    counts is what is bad so far.
    """
    ended = moment == len(ROWS) - 1
    bad = [row for row in (STAYS if ended else range(moment + 1)) if column[row].bad]
    refused = not column[ROWS.index("gradients")].size  # no update, so the loss harms nobody
    if ended and not refused and (report.verdict != Verdict.HEALTHY or not bad):
        return report
    if not bad:
        return replace(report, verdict=Verdict.HEALTHY, culprit=None, chain=())
    verdict = worst(Verdict(column[row].word) for row in bad)
    return replace(report, verdict=verdict, culprit=report.culprit or _carrier(report, bad[0]))


def _carrier(report: Report, row: int) -> Culprit:
    """What was bad first, where the tracer names nothing since it does not reach the loss."""
    sick = (op for op in report.ops if any(stats.bad for stats in op.outputs))
    return blamed(next(sick, report.ops[-1]), f"bad: {ROWS[row]}")


def noted(column: tuple[Square, ...], moment: int) -> str:
    """How much of the tensor at a moment is bad."""
    here = column[moment]
    share = f"{here.bad} of {here.size} bad" if here.size else "not computed"
    cells = f", {here.cells} of {CELLS} cells" if here.cells else ""
    return f"{ROWS[moment]}: {share}{cells}"
