"""Watch it spread: put one bad number into a training run and see how far it gets.

A NaN moves by rules. Elementwise operations keep it where it is, a sum over genes gives it the
whole cell, a mean over cells gives it everybody, and the optimizer keeps it for ever.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf

import torch

from labkit.bench import Claim, Reading, choice, dial
from labkit.board import Board, Square
from labkit.failures._moments import judged, noted, until
from labkit.failures._spreading import (
    BAD,
    CELLS,
    PHASES,
    PLACES,
    ROWS,
    STAYS,
    STEPS,
    WHEN,
    Poison,
    Training,
    history,
    losses,
)
from labkit.probes.report import Report
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict
from labkit.training.safe_step import safe_step

Form = Callable[..., None]


def plain(each, model, batch, optimizer) -> None:
    """What most loops do."""
    optimizer.zero_grad()
    each(model, batch).mean().backward()
    optimizer.step()


def clipped(each, model, batch, optimizer) -> None:
    """The guide's clipping: one norm for all, so one NaN for all."""
    optimizer.zero_grad()
    each(model, batch).mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()


def nanmean(each, model, batch, optimizer) -> None:
    """Leave the bad cells out of the mean: the loss is finite, and the backward pass meets them."""
    optimizer.zero_grad()
    each(model, batch).nanmean().backward()
    optimizer.step()


def skipped(each, model, batch, optimizer) -> None:
    """A step happens whole or not at all: one bad cell costs the whole batch."""
    safe_step(each(model, batch).mean(), optimizer, model.named_parameters(), inf)


def quarantined(each, model, batch, optimizer) -> None:
    """Look at each cell by itself first, and compute again without the bad ones."""
    model.eval()  # so that BatchNorm neither mixes the cells nor remembers them
    with torch.no_grad():
        good = each(model, batch).isfinite()
    model.train()
    safe_step(each(model, batch[good]).mean(), optimizer, model.named_parameters(), inf)


TITLE = "Watch it spread"
NICKNAME = "patient zero"
SYMPTOM = "One number is NaN, and some operations later everything is; nobody saw the way it took."
CLAIM = Claim(
    quote="loss=Inf → backward → 所有参数=NaN",
    translation="the loss is Inf; backward; all parameters are NaN",
    verdict="false",
    truth="It depends on where the bad number stands. An empty cell makes the loss Inf and harms "
    "no parameter. A NaN in one count reaches all 299402 in the same step: at the first sum over "
    "cells, which is the gradient of a weight.",
)
SOURCES = (
    "IEEE 754-2019, section 6.2: an operation on a NaN gives a NaN",
    "Ioffe and Szegedy (2015), Batch Normalization, algorithm 1: the mean over the batch",
    "Kingma and Ba (2015), Adam, algorithm 1: the moments that a step leaves behind",
)
CARD = {
    "cause": "A sum over an axis gives its NaN to all who share the sum: a cell, a batch, a model.",
    "repair": "Find the bad cells before anything is shared, and compute again without them.",
    "proof": "In the poisoned step fifteen of sixteen cells still teach, and nothing bad stays.",
}
FORMS: dict[str, Form] = {
    "plain": plain,
    "clip": clipped,
    "nanmean": nanmean,
    "skip": skipped,
    "quarantine": quarantined,
}
FORM_KNOB = "loop"
LAST = len(ROWS) - 1


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench. `step` and `op` are the moment at which you look."""

    step: float = dial(STEPS - 1, 0, STEPS - 1, 1, "", "training step at which you look")
    op: float = dial(LAST, 0, LAST, 1, "", "operation in it, from counts to parameters")
    kind: str = choice("none", ("none", *BAD), f"what is put in, in step {WHEN}")
    phase: str = choice("forward", ("forward", "backward", "memory"), "of values, gradients, Adam")
    place: str = choice("counts", PLACES, "the operation after which it is put in")
    cell: float = dial(3, 0, CELLS - 1, 1, "", "which cell of the batch")
    entry: float = dial(5, 0, 127, 1, "", "which gene, latent or unit of it")
    norm: str = choice("off", ("off", "on"), "BatchNorm on the latent means")
    loop: str = choice("plain", FORMS, "what the training loop does with a step")


CASES = {
    "healthy": Settings(),
    "broken": Settings(kind="nan"),
    "repaired": Settings(kind="nan", loop="quarantine"),
}
OUTBREAKS = {  # what a learner tries first
    "NaN in one count": Settings(kind="nan"),
    "the same, with BatchNorm": Settings(kind="nan", norm="on"),
    "NaN in one rate": Settings(kind="nan", place="log_mu"),
    "NaN in a gradient, unit asleep": Settings(kind="nan", phase="backward", place="hidden"),
    "NaN in a gradient, unit awake": Settings(
        kind="nan", phase="backward", place="hidden", entry=4
    ),
    "NaN in Adam's memory": Settings(kind="nan", phase="memory"),
    "Inf in one count": Settings(kind="inf"),
    "Inf in one latent mean": Settings(kind="inf", place="fc_mu"),
    "zero as a library size": Settings(kind="zero", place="library"),
    "zero as a count": Settings(kind="zero"),
}
HINTS = {
    Verdict.NAN: "the bad cell's backward pass was run, and there 0 times NaN is NaN. Leave the "
    "cell out before the losses that train are computed.",
    Verdict.WRONG: "the run goes on, and the good cells of that batch have taught nothing. Ask "
    "each cell for its loss first, and compute again with the good ones.",
}
CHECKS = (
    (
        Settings(kind="nan", norm="on"),
        Verdict.HEALTHY,
        "BatchNorm mixes the cells of a batch and remembers them. Look at the cells in eval "
        "mode, and train in train mode.",
    ),
    (
        Settings(kind="nan", phase="backward", place="log_mu"),
        Verdict.HEALTHY,
        "every loss was finite, and a gradient was not. Refuse a step whose gradient is bad.",
    ),
)


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """Some training steps of the trained model, one of them poisoned, seen at one moment.

    Args:
        settings: the knobs.
        repair: a training step in place of the chosen loop. It gets a function from model and
            batch to the loss of each cell, the model, the batch and the optimizer.
    """
    poison, form = _poison(settings), repair or FORMS[settings.loop]
    step, op = int(settings.step), int(settings.op)
    squares, values = _run(poison, form, settings.norm)
    clean = poison if poison.phase != "memory" else replace(poison, kind="none")
    truth = _truth(clean, settings.norm)
    report = judged(until(_traced(poison, form, settings.norm, step), op), squares[step], op)
    note = f"step {step}, {noted(squares[step], op)}"
    return Reading(settings, report.verdict, report, values[step], truth[step], note)


def board(settings: Settings, repair: Form | None = None) -> Board:
    """How many numbers are bad after each operation of each step, up to the present moment."""
    squares, _ = _run(_poison(settings), repair or FORMS[settings.loop], settings.norm)
    here = (int(settings.step), int(settings.op))
    return Board("Bad numbers after every operation", ROWS, PHASES, STAYS, squares, here)


def outbreaks() -> str:
    """Every outbreak of `OUTBREAKS` in a row: where it filled a tensor first, and what it cost."""
    head = ("put in", "first tensor without a good number", "half-life", "bad in the end", "copy")
    rows = [head]
    for name, settings in OUTBREAKS.items():
        found = board(settings).spread
        life = "never" if found.half_life is None else f"{found.half_life} ops"
        share = f"{found.bad / found.size:.0%}"
        rows.append((name, found.first_whole or "none", life, share, f"step {found.last_safe}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = (zip(row, widths, strict=True) for row in rows)
    return "\n".join("  ".join(f"{text:<{w}}" for text, w in row).rstrip() for row in cells)


def _poison(settings: Settings) -> Poison:
    if settings.kind == "none":
        return Poison("none", "forward", "counts", 0, 0)
    where = int(settings.cell), int(settings.entry)
    return Poison(settings.kind, settings.phase, settings.place, *where)


@lru_cache(maxsize=64)
def _run(
    poison: Poison, form: Form, norm: str
) -> tuple[tuple[tuple[Square, ...], ...], tuple[float, ...]]:
    """Squares by step and row, and the loss that each step would report without the poison."""
    return history(Training(poison, form, norm))


@lru_cache(maxsize=64)
def _truth(poison: Poison, norm: str) -> tuple[float, ...]:
    """The losses in float64 of a run in which the bad cell is missing in the poisoned step."""
    return losses(Training(poison, quarantined, norm, torch.float64))


@lru_cache(maxsize=64)
def _traced(poison: Poison, form: Form, norm: str, step: int) -> Report:
    training = Training(poison, form, norm)
    for before in range(step):
        training.begin(before)
        training.take(before)
    training.begin(step)
    given = {"model": training.model, "optimizers": training.optimizer}
    return trace(lambda: training.take(step), **given)
