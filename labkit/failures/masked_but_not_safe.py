"""Masked but not safe: a bad value that is chosen away comes back through the gradient.

Not every gene was measured in every cell. The likelihood of a marker such as -1 is NaN, and a mask
takes it out of the loss. The backward pass multiplies by the mask's 0 and goes on through the
likelihood all the same, where 0 times NaN is NaN: the loss is right, and every gradient is lost.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, nan

import torch
from torch import Tensor

from labkit.bench import Claim, Reading, choice, dial
from labkit.cells.data import Cells
from labkit.failures._batch import batch
from labkit.failures._whole import wrong
from labkit.models.likelihood import nb_log_likelihood_from_logs as log_p
from labkit.models.vae import NBVAE, sample_z
from labkit.probes.report import Report
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict
from labkit.training.train import trained_vae

Form = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def times(x: Tensor, log_mu: Tensor, log_r: Tensor, seen: Tensor) -> Tensor:
    """Multiply by the mask: 0 times NaN is NaN."""
    total = (log_p(x, log_mu, log_r) * seen).sum(-1)
    return -(total / seen.sum(-1)).mean()


def where(x: Tensor, log_mu: Tensor, log_r: Tensor, seen: Tensor) -> Tensor:
    """Choose after the likelihood: the value is right, and the backward pass has met the NaN."""
    total = torch.where(seen > 0, log_p(x, log_mu, log_r), 0.0).sum(-1)
    return -(total / seen.sum(-1)).mean()


def cleaned(x: Tensor, log_mu: Tensor, log_r: Tensor, seen: Tensor) -> Tensor:
    """nan_to_num: as above, and every other NaN is hidden with it."""
    total = log_p(x, log_mu, log_r).nan_to_num().sum(-1)
    return -(total / seen.sum(-1)).mean()


def zeros(x: Tensor, log_mu: Tensor, log_r: Tensor, seen: Tensor) -> Tensor:
    """Call the missing counts zero, and score them: finite, alive and another loss."""
    return -log_p(x.nan_to_num().clamp(min=0), log_mu, log_r).mean(-1).mean()


def before_and_after(x: Tensor, log_mu: Tensor, log_r: Tensor, seen: Tensor) -> Tensor:
    """Choose before, so that no NaN is computed; and after, so that nothing false is counted."""
    harmless = torch.where(seen > 0, x, 0.0)
    total = torch.where(seen > 0, log_p(harmless, log_mu, log_r), 0.0).sum(-1)
    count = seen.sum(-1)
    return -(total / count.clamp(min=1)).sum() / (count > 0).sum()


TITLE = "Masked, but not safe"
NICKNAME = "zero times NaN"
SYMPTOM = "The masked loss is finite and right, and after one step every parameter is NaN."
CLAIM = Claim(
    quote="if torch.isnan(loss): raise",
    translation="check the loss for NaN after each batch",
    verdict="incomplete guard",
    truth="A mask takes the NaN out of the loss and leaves it in the gradient: the loss is right, "
    "and all 12 gradients are NaN. A mask that looks for NaN hides the next one, too.",
)
SOURCES = (
    "IEEE 754-2019, sections 5.11 and 6.2: every comparison with a NaN is false, and a NaN goes "
    "through arithmetic",
    "Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics: the "
    "negative binomial of counts",
)
CARD = {
    "cause": "The mask stands behind the operation, and the chain rule multiplies 0 by NaN.",
    "repair": "Put something harmless in the place of what is missing, before the operation.",
    "proof": "The gradient is finite, and the same whatever stands in the missing entries.",
}
LATE = (
    "the NaN is chosen away behind the likelihood. The backward pass goes through the likelihood "
    "all the same, and 0 times NaN is NaN. Choose it away in x, before."
)
HINTS = {
    Verdict.NAN: LATE,
    Verdict.INF: LATE,
    Verdict.WRONG: "finite, but far from float64: it is not the mean over what was measured. What "
    "is missing is no count of zero, and a cell without counts is none. Divide by what was seen.",
}
FORMS: dict[str, Form] = {
    "times mask": times,
    "where": where,
    "nan_to_num": cleaned,
    "zeros": zeros,
    "before and after": before_and_after,
}
FORM_KNOB = "mask"
MARKERS = {"-1": -1.0, "NaN": nan, "0": 0.0}
OFF = 1e-3  # of the loss, relative; rounding of a healthy step stays near 1e-6


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    missing: float = dial(0.0, 0, 90, 5, "%", "entries that were not measured")
    marker: str = choice("-1", MARKERS, "what stands in their place")
    empty: float = dial(0.0, 0, 8, 1, "cells", "of which nothing was measured")
    mask: str = choice("where", FORMS, "how the mean over the others is taken")
    dtype: str = choice("float32", ("float32", "float64"), "of model and data")


CASES = {
    "healthy": Settings(),
    "broken": Settings(missing=30.0),
    "repaired": Settings(missing=30.0, mask="before and after"),
    "one entry": Settings(empty=1.0, mask="times mask"),
}
CHECKS = (
    (Settings(missing=30.0, empty=2.0), Verdict.HEALTHY, ""),
    (Settings(missing=30.0, marker="NaN"), Verdict.HEALTHY, ""),
    (Settings(missing=30.0, marker="0"), Verdict.HEALTHY, ""),
)


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """One training step of the trained model on 32 real cells, some of their counts missing.

    Args:
        settings: the knobs.
        repair: a function of x, log mu, log r and what was seen (1, else 0), each (cell, gene), to
            the loss: the mean over cells of their mean over what was seen.
    """
    form = repair or FORMS[settings.mask]
    model, cells, x, seen = _prepared(settings, settings.dtype)
    report = trace(lambda: loss(model, cells, x, seen, form), model=model)
    with torch.no_grad():
        truth = float(loss(*_prepared(settings, "float64"), before_and_after))
    value = report.losses[0]
    # What scores the missing counts is as finite and as wrong in float64: the tracer cannot know.
    off = isfinite(value) and abs(value - truth) > OFF * abs(truth)
    if report.verdict == Verdict.HEALTHY and off:
        report = _wrong(report, f"{value:.3f} where the mean over what was seen is {truth:.3f}")
    return Reading(settings, report.verdict, report, value, truth)


def loss(model: NBVAE, cells: Cells, x: Tensor, seen: Tensor, form: Form) -> Tensor:
    """Reconstruction loss in nats per measured count; the encoder sees 0 where nothing was."""
    mu_z, logvar_z = model.encoder(torch.where(seen > 0, x, 0.0), cells.tissue)
    z = sample_z(mu_z, logvar_z, torch.Generator().manual_seed(0))
    return form(x, *model.decoder(z, cells.tissue, cells.library, as_logs=True), seen)


def descents(steps: int = 4, lr: float = 1e-3) -> dict[str, list[float]]:
    """Train without any safety; the loss of every step, for each form."""
    return {name: _descent(form, steps, lr) for name, form in FORMS.items()}


def _descent(form: Form, steps: int, lr: float) -> list[float]:
    model, *data = _prepared(CASES["broken"], "float32")
    optimizer = torch.optim.Adam(model.parameters(), lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(model, *data, form)
        value.backward()
        optimizer.step()
        losses.append(value.item() + 0.0)  # for readers: 0, not -0
    return losses


def passes_through() -> dict[str, str]:
    """What becomes of the NaN in [1, NaN, 3]: value of an operation, or result of a check."""
    t, bar = torch.tensor([1.0, nan, 3.0]), nan
    return {
        "t.sum(), t.mean()": f"{t.sum():g}, {t.mean():g}",
        "t.max(), t.min()": f"{t.max():g}, {t.min():g}",
        "t.clamp(0, 2)": str(t.clamp(0, 2).tolist()),
        "t.relu()": str(t.relu().tolist()),
        "torch.fmax(t, zeros)": str(torch.fmax(t, torch.zeros(3)).tolist()),
        "torch.where(t > 0, t, 0)": str(torch.where(t > 0, t, 0.0).tolist()),
        "t[t > 0].sum()": f"{t[t > 0].sum():g}",
        "t.nanmean()": f"{t.nanmean():g}",
        "t.argmax()": str(t.argmax().item()),
        "(t > 2).sum(), (t <= 2).sum()": f"{(t > 2).sum()}, {(t <= 2).sum()}",
        "nan > 1e3, nan < 1e3": f"{bar > 1e3}, {bar < 1e3}",
        "min(0.5, nan), min(nan, 0.5)": f"{min(0.5, bar)}, {min(bar, 0.5)}",
        "not (nan < 1e3)": str(not (bar < 1e3)),
    }


def _wrong(report: Report, remark: str) -> Report:
    """The same report, its last op to blame for a value that is far from the truth."""
    op = [op for op in report.ops if op.phase == "forward" and op.file][-1]
    return wrong(report, op, remark)


def _prepared(settings: Settings, dtype: str) -> tuple[NBVAE, Cells, Tensor, Tensor]:
    """A fresh model, real cells, their counts with gaps, and what was seen of them."""
    kind = getattr(torch, dtype)
    model, cells = trained_vae().to(kind), batch(kind)[:32]
    draw = torch.rand(cells.counts.shape, generator=torch.Generator().manual_seed(0))
    seen = (draw >= settings.missing / 100).to(cells.counts)
    seen[: int(settings.empty)] = 0
    x = torch.where(seen > 0, cells.counts, MARKERS[settings.marker])
    return model, cells, x, seen
