"""Log of almost nothing: the eps that keeps the log finite also keeps the model from learning.

A decoder that is far too low for a gene should be pulled up by every count. With log(mu + eps)
the pull is x mu / (mu + eps): it fades with mu itself. In float16 the usual eps is 0 as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import log10

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.bench import Claim, Reading, choice, dial
from labkit.cells.data import Cells
from labkit.failures._batch import batch, shifted
from labkit.failures._whole import wrong
from labkit.models.guards import Guard
from labkit.models.likelihood import nb_log_likelihood_from_logs
from labkit.models.vae import NBVAE, sample_z
from labkit.probes.report import Report
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict

Form = Callable[[Tensor], Tensor]
CAP_LOG_R = Guard("log_r", "straight_through", -8.0, 12.0)  # only the log of mu shall break here


def bare(a: Tensor) -> Tensor:
    """There and back: below the dtype's smallest number mu is 0, and its log -Inf."""
    return a.exp().log()


def added(a: Tensor, eps: float = 1e-8) -> Tensor:
    """The guide's: finite where eps is not 0; the slope is mu / (mu + eps)."""
    return (a.exp() + eps).log()


def clamped(a: Tensor, eps: float = 1e-8) -> Tensor:
    """A floor instead of a sum: exact above it, and no slope at all below it."""
    return a.exp().clamp(min=eps).log()


def softplus(a: Tensor, eps: float = 1e-8) -> Tensor:
    """The guide's decoder: mu = softplus(a) + eps. Another model: it meets exp only far below 0."""
    return (F.softplus(a) + eps).log()


def tiny(a: Tensor) -> Tensor:
    """An eps that each dtype has: its smallest normal number."""
    return (a.exp() + torch.finfo(a.dtype).tiny).log()


def as_log(a: Tensor) -> Tensor:
    """The layer's output is log mu already. Nothing to compute, nothing to protect."""
    return a


TITLE = "Log of almost nothing"
NICKNAME = "the pull that fades when it is needed"
SYMPTOM = "A loss that is high and finite stays where it is: what is predicted near 0 stays near 0."
CLAIM = Claim(
    quote="所有log运算: 参数+eps",
    translation="protection point 5: add eps inside every log",
    verdict="incomplete guard",
    truth="It hides the gradient where the model is most wrong: at mu = 1e-11 a count pulls with a "
    "thousandth of its force. In float16 eps = 1e-8 is 0, and the log is -Inf.",
)
SOURCES = (
    "Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics: the "
    "negative binomial of counts",
    "IEEE 754-2019: the smallest positive binary16 is 2**-24, near 6e-8",
)
CARD = {
    "cause": "log(mu + eps) is flat where mu is far below eps.",
    "repair": "Let the layer predict log mu, and hand the logarithm to the likelihood.",
    "proof": "At any start, each count pulls log mu with the force of the count.",
}
HINTS = {
    Verdict.WRONG: "finite, but far from float64. Look for a constant that is added to mu: where "
    "mu is smaller, the loss and its gradient are those of the constant.",
    Verdict.INF: "mu underflows to 0 before its log is taken. A constant helps only where the "
    "dtype can hold it. Is there a way that never leaves the logarithm?",
    Verdict.NAN: "mu underflows to 0 before its log is taken. A constant helps only where the "
    "dtype can hold it. Is there a way that never leaves the logarithm?",
}
FORMS: dict[str, Form] = {
    "log(exp)": bare,
    "log(exp + eps)": added,
    "log(clamp)": clamped,
    "log(softplus + eps)": softplus,
    "log(exp + tiny)": tiny,
    "log mu": as_log,
}
FORM_KNOB = "way"
CONSTANT = (added, clamped, softplus)  # the ways that have an eps
MAP = {"shift": range(-120, 1, 10), "eps": range(-40, 0, 4)}
OFF = 1e-2  # of the loss, relative; bfloat16 rounding of a healthy step stays near 1e-3


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    shift: float = dial(0.0, -120, 0, 0.5, "nats", "added to the decoder's output for log mu")
    way: str = choice("log mu", FORMS, "from the decoder's output to log mu")
    dtype: str = choice("float32", ("float16", "bfloat16", "float32", "float64"), "of the model")
    eps: float = dial(-8.0, -40, -2, 0.5, "log10", "the constant of the ways that have one")


CASES = {
    "healthy": Settings(),
    "broken": Settings(shift=-40.0, way="log(exp + eps)"),
    "repaired": Settings(shift=-40.0),
    "half": Settings(shift=-15.0, way="log(exp + eps)", dtype="float16"),
}


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """The reconstruction loss of the trained model on 64 real cells, its log mu shifted.

    Args:
        settings: the knobs.
        repair: from the decoder's output, shape (cell, gene), to log mu, same shape.
    """
    form = repair or FORMS[settings.way]
    way = partial(form, eps=10.0**settings.eps) if form in CONSTANT and not repair else form
    model, cells = _prepared(settings.shift, settings.dtype)
    report = trace(lambda: loss(model, cells, way), model=model)
    with torch.no_grad():
        truth = float(loss(*_prepared(settings.shift, "float64"), as_log))
    value = report.losses[0]
    # A constant is as wrong in float64, so the tracer cannot know. Softplus is another model.
    off = abs(value - truth) > OFF * abs(truth) and form is not softplus
    if report.verdict == Verdict.HEALTHY and off:
        report = _wrong(report, "the loss is far from that of the model's own mu")
    return Reading(settings, report.verdict, report, value, truth)


def loss(model: NBVAE, cells: Cells, way: Form) -> Tensor:
    """Reconstruction loss in nats per cell."""
    mu_z, logvar_z = model.encoder(cells.counts, cells.tissue)
    z = sample_z(mu_z, logvar_z, torch.Generator().manual_seed(0))
    out, log_r = model.decoder(z, cells.tissue, cells.library, as_logs=True)
    log_p = nb_log_likelihood_from_logs(cells.counts, way(out), CAP_LOG_R(log_r))
    return -log_p.sum(-1).mean()


def pull(way: str, shifts=range(0, -41, -1)) -> list[float]:
    """log10 of the norm of the gradient that the layer of mu gets, at each shift."""
    norms = []
    for shift in shifts:
        model, cells = _prepared(float(shift), "float32")
        (slope,) = torch.autograd.grad(loss(model, cells, FORMS[way]), [model.decoder.fc_mu.bias])
        norms.append(log10(max(slope.norm().item(), 1e-12)))
    return norms


def recovery(way: str, shift: float = -30.0, steps: int = 60, lr: float = 0.5) -> list[float]:
    """Train the bias of the layer of mu by plain SGD; the true loss after each step."""
    model, cells = _prepared(shift, "float32")
    optimizer = torch.optim.SGD([model.decoder.fc_mu.bias], lr)
    path = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model, cells, FORMS[way]).backward()
        optimizer.step()
        with torch.no_grad():
            path.append(float(loss(model, cells, as_log)))
    return path


def _wrong(report: Report, remark: str) -> Report:
    """The same report, its last log (or the last op of the loss) to blame."""
    ops = [op for op in report.ops if op.phase == "forward" and op.file]
    logs = [op for op in ops if op.name == "log" and op.function != "forward"]
    op = (logs or ops)[-1]
    return wrong(report, op, remark)


def _prepared(shift: float, dtype: str) -> tuple[NBVAE, Cells]:
    """A fresh copy of the trained model, its log mu shifted, and 64 cells, in one dtype."""
    kind = getattr(torch, dtype)
    return shifted("decoder.fc_mu.bias", shift, kind), batch(kind)
