"""Vanishing dispersion: a likelihood that is finite and too good to be true.

The negative binomial's r is an inverse dispersion. Where genes are nearly Poisson it grows, and
the textbook formula subtracts two numbers near r log r. In float32 nothing is left of them.
Where r is tiny, of which the guide warns, the formula is well; its floor is what kills.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import log10, nan

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from labkit.bench import Claim, Reading, choice, dial
from labkit.cells.data import Cells
from labkit.failures._batch import batch, shifted
from labkit.failures._whole import wrong
from labkit.models.likelihood import nb_log_likelihood_from_logs, nb_log_likelihood_guide
from labkit.models.vae import NBVAE, sample_z
from labkit.probes.report import Report
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict
from labkit.training.train import safe_step

Form = Callable[[Tensor, Tensor, Tensor], Tensor]


def guide(x: Tensor, log_mu: Tensor, log_r: Tensor) -> Tensor:
    """The guide's formula: lgamma(x + r) - lgamma(r), r not below 1e-8."""
    return nb_log_likelihood_guide(x, log_mu.exp(), log_r.exp())


def distribution(x: Tensor, log_mu: Tensor, log_r: Tensor) -> Tensor:
    """The one that comes with torch."""
    return torch.distributions.NegativeBinomial(log_r.exp(), logits=log_mu - log_r).log_prob(x)


def wide_gammas(x: Tensor, log_mu: Tensor, log_r: Tensor) -> Tensor:
    """Only the gammas in float64: the value is right, the slopes meet in float32 and cancel."""
    r, odds = log_r.exp(), log_mu - log_r
    gammas = (x.double() + r.double()).lgamma() - r.double().lgamma() - (x.double() + 1).lgamma()
    return gammas.to(x.dtype) + r * logsigmoid(-odds) + x * logsigmoid(odds)


def wide(x: Tensor, log_mu: Tensor, log_r: Tensor) -> Tensor:
    """All of it in float64, one cast in and one out."""
    dtype, (x, log_mu, log_r) = x.dtype, (t.double() for t in (x, log_mu, log_r))
    r, odds = log_r.exp(), log_mu - log_r
    gammas = (x + r).lgamma() - r.lgamma() - (x + 1).lgamma()
    return (gammas + r * logsigmoid(-odds) + x * logsigmoid(odds)).to(dtype)


def stable(x: Tensor, log_mu: Tensor, log_r: Tensor) -> Tensor:
    """The library's: what cancels is subtracted on paper, by Stirling's series."""
    return nb_log_likelihood_from_logs(x, log_mu, log_r)


TITLE = "Vanishing dispersion"
NICKNAME = "too good to be true"
SYMPTOM = "The loss falls below what is possible; every number is finite, every gradient alive."
CLAIM = Claim(
    quote="r过小 <1e-8 → lgamma(r) → 极大负值 → log_p异常 → 所有参数=NaN",
    translation="r too small (< 1e-8): lgamma(r) is hugely negative, and all parameters NaN",
    verdict="false",
    truth="lgamma(1e-8) is +18.42, and at most +103.28 for any float32 above 0. No parameter "
    "becomes NaN. The formula breaks on the other side: from r near 1e5 it loses its digits.",
)
SOURCES = (
    "Abramowitz and Stegun (1964), 6.1.41: lgamma(r) = (r - 1/2) log r - r + ...",
    "Goldberg (1991), What Every Computer Scientist Should Know About Floating-Point "
    "Arithmetic: cancellation",
    "Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics: the "
    "negative binomial of counts",
)
CARD = {
    "cause": "lgamma(x + r) and lgamma(r) are near r log r, and their difference near x log r.",
    "repair": "Subtract on paper what cancels, or compute the whole likelihood in float64.",
    "proof": "Value and gradient agree with float64, at r = 1e8 as at r = 1.",
}
HINTS = {
    Verdict.WRONG: "finite, but far from float64, in the value or in the gradient. Two lgammas of "
    "large numbers are subtracted. Take float64 before the first lgamma, and leave it once, at "
    "the end: what is cast in between is rounded, and so is its gradient.",
}
FORMS: dict[str, Form] = {
    "guide": guide,
    "torch.distributions": distribution,
    "float64 gammas": wide_gammas,
    "float64": wide,
    "stable": stable,
}
FORM_KNOB = "likelihood"
SHIFTS = (-100, -80, -60, -40, -20, 0, 5, 10, 15, 20, 40, 60, 75, 90)
MAP = {"shift": SHIFTS, "likelihood": tuple(FORMS)}
VALUE_OFF = 1e-3  # of the loss, relative; rounding of a healthy step stays near 1e-6
SLOPE_OFF = 0.1  # of the norm of the gradient that fc_r gets, relative
SLOPE = "decoder.fc_r.bias"


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    shift: float = dial(0.0, -100, 90, 0.5, "nats", "added to the decoder's log r")
    likelihood: str = choice("stable", FORMS, "log P(x) from x, log mu and log r")
    dtype: str = choice("float32", ("float32", "float64"), "of model and data")


CASES = {
    "healthy": Settings(),
    "broken": Settings(shift=12.0, likelihood="guide"),
    "repaired": Settings(shift=12.0),
    "small": Settings(shift=-30.0, likelihood="guide"),
}


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """The reconstruction loss of the trained model on 64 real cells, its log r shifted.

    Args:
        settings: the knobs.
        repair: a function of x, log mu and log r, each (cell, gene), to log P(x).
    """
    form = repair or FORMS[settings.likelihood]
    model, cells = _prepared(settings.shift, settings.dtype)
    report = trace(lambda: loss(model, cells, form), model=model, shadow=VALUE_OFF)
    truth, slope = _truth(settings.shift)
    value = report.losses[0]
    found = next((fate.norm for fate in report.parameters if fate.name == SLOPE), nan)
    # The tracer carries float64 forward only, so a gradient that is noise looks well to it.
    if report.verdict == Verdict.HEALTHY and abs(value - truth) > VALUE_OFF * abs(truth):
        report = _wrong(report, "the loss is far from float64")
    if report.verdict == Verdict.HEALTHY and abs(found - slope) > SLOPE_OFF * slope:
        report = _wrong(report, "the loss is right, the gradient of fc_r is far from float64")
    return Reading(settings, report.verdict, report, value, truth)


def loss(model: NBVAE, cells: Cells, form: Form) -> Tensor:
    """Reconstruction loss in nats per cell."""
    log_mu, log_r = decoded(model, cells)
    return -form(cells.counts, log_mu, log_r).sum(-1).mean()


def decoded(model: NBVAE, cells: Cells) -> tuple[Tensor, Tensor]:
    """log mu and log r, each (cell, gene)."""
    mu_z, logvar_z = model.encoder(cells.counts, cells.tissue)
    z = sample_z(mu_z, logvar_z, torch.Generator().manual_seed(0))
    return model.decoder(z, cells.tissue, cells.library, as_logs=True)


def profile(form: str, shifts=range(13)) -> tuple[list[float], list[float]]:
    """Loss, and log10 of the norm of fc_r's gradient, at each shift; "truth" is float64."""
    pairs = [_truth(float(s)) if form == "truth" else _pair(FORMS[form], s) for s in shifts]
    return [value for value, _ in pairs], [log10(slope) for _, slope in pairs]


def training(form: str, shift: float = 12.0, steps: int = 60) -> tuple[list[float], list[float]]:
    """Train from a shifted log r: the loss that is reported at each step, and the true one."""
    model, cells = _prepared(shift, "float32")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    reported, true = [], []
    for _ in range(steps):
        with torch.no_grad():
            true.append(float(loss(model, cells, stable)))
        value = loss(model, cells, FORMS[form])
        reported.append(safe_step(value, optimizer, model.parameters(), max_norm=10).loss)
    return reported, true


def _pair(form: Form, shift: float, dtype: str = "float32") -> tuple[float, float]:
    model, cells = _prepared(shift, dtype)
    value = loss(model, cells, form)
    (slope,) = torch.autograd.grad(value, [model.decoder.fc_r.bias])
    return value.item(), slope.norm().item()


@lru_cache(maxsize=512)
def _truth(shift: float) -> tuple[float, float]:
    """Loss, and norm of fc_r's gradient, by the stable form in float64."""
    return _pair(stable, shift, "float64")


def _wrong(report: Report, remark: str) -> Report:
    """The same report, its last lgamma (or the last op of the loss) to blame."""
    ops = [op for op in report.ops if op.phase == "forward" and op.file]
    op = next((op for op in ops[::-1] if op.name == "lgamma"), ops[-1])
    return wrong(report, op, remark)


def _prepared(shift: float, dtype: str) -> tuple[NBVAE, Cells]:
    """A fresh copy of the trained model, its log r shifted, and 64 cells, in one dtype."""
    kind = getattr(torch, dtype)
    return shifted("decoder.fc_r.bias", shift, kind), batch(kind)
