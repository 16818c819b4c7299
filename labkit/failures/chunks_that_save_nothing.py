"""Chunks that save nothing: what a loop lets go, autograd keeps.

Distances of all cells to all cells are taken in chunks, so that only one chunk is in memory. With
gradients each chunk's distances wait for the backward pass, and all chunks together are the whole
matrix. No number is wrong, so neither graph nor histogram can tell: the notebook shows the bytes
that live, op by op, in their place.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from labkit.bench import Claim, Reading, choice, dial
from labkit.cells.data import load_pbmc
from labkit.failures._live import Live
from labkit.failures._whole import blamed
from labkit.models.energy import energy_distance, energy_distance_guide
from labkit.models.vae import embed
from labkit.probes.report import Report
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict
from labkit.training.train import trained_vae

Form = Callable[[Tensor, Tensor, int], Tensor]
EXACT = "donot_use_mm_for_euclid_dist"
GB = 1e9
WAIT = "GB wait for backward"
TRACED = 100  # cells whose gradients are traced; bytes are counted for all


def whole(x: Tensor, y: Tensor, rows: int) -> Tensor:
    """All distances at once."""
    return torch.cdist(x, y, compute_mode=EXACT).mean()


def chunked(x: Tensor, y: Tensor, rows: int) -> Tensor:
    """The guide's: some rows at a time, the sums stacked."""
    sums = []
    for part in x.split(rows):
        sums.append(torch.cdist(part, y, compute_mode=EXACT).sum())
    return torch.stack(sums).sum() / len(x) / len(y)


def deleted(x: Tensor, y: Tensor, rows: int) -> Tensor:
    """Each chunk's distances are deleted before the next. Autograd has a hold on them."""
    total = x.new_zeros(())
    for part in x.split(rows):
        distances = torch.cdist(part, y, compute_mode=EXACT)
        total = total + distances.sum()
        del distances
    return total / len(x) / len(y)


def recomputed(x: Tensor, y: Tensor, rows: int) -> Tensor:
    """Keep the rows of each chunk, and compute its distances anew in the backward pass."""
    sums = [
        checkpoint(_sum, part, y, use_reentrant=False, preserve_rng_state=False)
        for part in x.split(rows)
    ]
    return torch.stack(sums).sum() / len(x) / len(y)


def _sum(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y, compute_mode=EXACT).sum()


TITLE = "Chunks that save nothing"
NICKNAME = "the loop lets go, autograd does not"
SYMPTOM = "It works on a thousand cells and dies for lack of memory on twenty thousand."
CLAIM = Claim(
    quote="energy_distance: 分块计算防止内存溢出",
    translation="energy_distance: computing in chunks prevents running out of memory",
    verdict="incomplete guard",
    truth="Without gradients, yes. With them every chunk waits for the backward pass: 3.2 GB for "
    "20000 cells, with chunks as without.",
)
SOURCES = (
    "Chen et al. (2016), Training Deep Nets with Sublinear Memory Cost",
    "PyTorch, saved_tensors_hooks: what autograd keeps for the backward pass",
)
CARD = {
    "cause": "The slope of a distance needs the distance, so autograd keeps each of them.",
    "repair": "Recompute a chunk in the backward pass, or take its gradient in the forward pass.",
    "proof": "The peak of the live bytes grows with the cells, and not with their square.",
}
KEPT = (
    "what your loop lets go, autograd keeps: the distances of every chunk wait for the backward "
    "pass. Keep what they are made of, and compute them anew when their slope is asked for."
)
WIDE = (
    "next to nothing waits, but too much is alive at once. Is one chunk a chunk? All rows in one "
    "checkpoint are the whole matrix again, and a difference x[:, None] - y is 8 times as large as "
    "the distances: torch.cdist makes none, and smaller chunks help."
)
HINTS = {
    Verdict.MEMORY: lambda reading: KEPT if WAIT in str(reading) else WIDE,
    Verdict.WRONG: "far from float64: all pairs count. A sample of them is another loss.",
}
FORMS: dict[str, Form] = {
    "whole": whole,
    "chunked": chunked,
    "deleted": deleted,
    "recomputed": recomputed,
}
FORM_KNOB = "mean"
MAP = {"cells": (500, 2500, 5000, 10000, 15000, 20000), "mean": tuple(FORMS)}
OFF = 1e-4  # of the loss, relative to float64; a float32 sum of 10000 distances stays near 1e-6


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    cells: float = dial(1000.0, 500, 20000, 500, "", "cells in each of two clouds")
    rows: float = dial(1000.0, 500, 20000, 500, "", "size of a chunk")
    plan: float = dial(1.0, 0.1, 10, 0.1, "GB", "that may be used")
    gradient: str = choice("on", ("on", "off"), "off: computed under no_grad")
    mean: str = choice("chunked", FORMS, "how the mean of all distances is taken")
    dtype: str = choice("float32", ("float32", "float64"), "of the cells")


CASES = {
    "healthy": Settings(),
    "broken": Settings(cells=20000.0),
    "repaired": Settings(cells=20000.0, mean="recomputed"),
    "no_grad": Settings(cells=20000.0, gradient="off"),
}


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """One step of a map that carries cells to others: traced on 100 cells, counted on all.

    Args:
        settings: the knobs.
        repair: a function of two clouds, (cell, latent) and (other cell, latent), and the rows of
            a chunk, to the mean of all distances. It also runs on device "meta": no `.item()`.
    """
    form, step = repair or FORMS[settings.mean], _step(settings.dtype)
    x, y = clouds(settings.dtype)
    rows = max(1, round(settings.rows * TRACED / settings.cells))  # as many chunks as all have
    step.requires_grad_(settings.gradient == "on").train(settings.gradient == "on")
    report = trace(lambda: loss(step, x, y, rows, form), model=step)
    with torch.no_grad():
        truth = float(loss(_step("float64"), x.double(), y.double(), rows, whole))
    value = report.losses[0] if report.losses else float(loss(step, x, y, rows, form))
    if report.verdict == Verdict.HEALTHY and not abs(value - truth) <= OFF * abs(truth):
        report = _blamed(report, Verdict.WRONG, f"{value:.4g} where float64 has {truth:.4g}")
    note = ""
    if report.verdict == Verdict.HEALTHY:  # every number is well: do they fit?
        used = count(form, settings)
        note = f"{used.peak / GB:.2g} GB at once"
        if used.peak > settings.plan * GB:
            waits = used.waiting > settings.plan * GB  # else the peak comes in the backward pass
            much = (
                f"{used.waiting / GB:.2g} {WAIT}" if waits else f"{used.peak / GB:.2g} GB at once"
            )
            report = _blamed(report, Verdict.MEMORY, f"{much}, {settings.plan:g} planned")
    return Reading(settings, report.verdict, report, value, truth, note)


def loss(step: nn.Linear, x: Tensor, y: Tensor, rows: int, form: Form) -> Tensor:
    """Energy distance of the moved cells to the others, without the others' own term."""
    z = step(x)
    return 2 * form(z, y, rows) - form(z, z, rows)


@dataclass(frozen=True)
class Used:
    """Bytes of tensors: those that wait for backward, the most at once, and after each op."""

    waiting: int
    peak: int
    history: tuple[int, ...]


def count(form: Form, settings: Settings) -> Used:
    """What a training step uses, in full size and without a number."""
    dtype = getattr(torch, settings.dtype)
    step = nn.Linear(8, 8, device="meta", dtype=dtype)
    x, y = torch.empty(2, int(settings.cells), 8, device="meta", dtype=dtype)
    with torch.set_grad_enabled(settings.gradient == "on"), Live() as live:
        value = loss(step, x, y, int(settings.rows), form)
        waiting = live.now
        if value.requires_grad:
            value.backward()
    return Used(waiting, live.peak, tuple(live.history))


def histories(cells: int = 20000, rows: int = 1000, parts: int = 25) -> dict[str, list[float]]:
    """Most GB that live in each part of a training step, until past the peak, for three ways."""
    settings = Settings(cells=float(cells), rows=float(rows))
    found = {}
    for name in ("whole", "chunked", "recomputed"):
        sizes = count(FORMS[name], settings).history
        ends = [round(i * len(sizes) / parts) for i in range(parts + 1)]
        found[name] = [
            max(sizes[a:b]) / GB for a, b in itertools.pairwise(ends[: parts * 3 // 5 + 1])
        ]
    return found


def distances(cells: int) -> dict[str, float]:
    """MB at once for the guide's energy distance and for labkit's, with gradients, on numbers."""
    x, y = clouds("float32", cells)
    found = {}
    for name, distance in (("the guide's", energy_distance_guide), ("labkit's", energy_distance)):
        step = _step("float32")
        with Live() as live:
            distance(step(x), y).backward()
        found[name] = live.peak / 1e6
    return found


def clouds(dtype: str, count: int = TRACED) -> tuple[Tensor, Tensor]:
    """Latent states of real cells, drawn with a little noise, twice (cell, latent)."""
    z = embed(trained_vae(), load_pbmc())
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(len(z), (2, count), generator=draw)
    noise = 0.1 * torch.randn(2, count, z.shape[1], generator=draw)
    return tuple((z[rows] + noise).to(getattr(torch, dtype)))


def _step(dtype: str) -> nn.Linear:
    """An operator that starts as the identity."""
    step = nn.Linear(8, 8, dtype=getattr(torch, dtype))
    with torch.no_grad():
        step.weight.copy_(torch.eye(8))
        step.bias.zero_()
    return step


def _blamed(report: Report, verdict: Verdict, remark: str) -> Report:
    """The same report, the op whose results are largest to blame."""
    forward = [op for op in report.ops if op.phase == "forward" and op.file and op.outputs]
    inside = [op for op in forward if op.function != "loss"]  # in the form, if it does anything
    op = max(inside or forward, key=lambda op: op.outputs[0].size)
    return replace(report, verdict=verdict, culprit=blamed(op, remark, op.name))
