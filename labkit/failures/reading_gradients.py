"""Reading gradients: one layer hears nothing, and the usual ways to look say that all is well.

A gate decides which genes the encoder reads: 0 or 1 for each. The decision is a step, a step has no
slope, and what becomes of the gradient depends on how the step is written: gone, or exactly zero.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Generator, Tensor, nn

from labkit.bench import Claim, Reading, choice, dial
from labkit.cells.data import Cells, load_pbmc
from labkit.failures._whole import blamed, gradients
from labkit.models.guards import REPAIRED
from labkit.models.likelihood import kl_standard_normal, nb_log_likelihood_from_logs
from labkit.models.vae import NBVAE, sample_z
from labkit.probes.report import Op, Report
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict
from labkit.training.train import trained_vae

Form = Callable[[Tensor], Tensor]
GENES = 765
HIDDEN = 0.5  # share of a parameter's entries that hear nothing, from which on it is called dead

TITLE = "Reading gradients"
NICKNAME = "the norm that says nothing"
SYMPTOM = "Loss and gradient norm look well, and one part of the model never learns."
CLAIM = Claim(
    quote='print(f"✅ {name}: 梯度正常 (norm={param.grad.norm():.4f})")',
    translation="a parameter whose gradient is there, without NaN and not below 1e-8 is normal",
    verdict="false",
    truth="One living entry of 765 makes a parameter normal, and so does an infinite one. A loss "
    "that is scaled by 1e-12 makes every parameter of a good model suspect.",
)
SOURCES = (
    "Bengio, Leonard and Courville (2013), Estimating or Propagating Gradients Through "
    "Stochastic Neurons, section 4: the straight-through estimator",
    "PyTorch documentation, Autograd mechanics: requires_grad of comparisons; round",
    "torchviz, make_dot: it walks grad_fn.next_functions from the loss",
)
CARD = {
    "cause": "A decision written as a comparison has no graph; written as round it has slope zero.",
    "repair": "Keep the step's value, and pass the gradient of the soft decision below it.",
    "proof": "Count, entry by entry, whose gradient is None, zero, not finite, or never applied.",
}


def compare(score: Tensor) -> Tensor:
    """A comparison: no graph leads back to the score."""
    return (score > 0).to(score.dtype)


def rounded(score: Tensor) -> Tensor:
    """A rounded sigmoid: the graph is whole, and its slope is zero everywhere."""
    return torch.sigmoid(score).round()


def soft(score: Tensor) -> Tensor:
    """A sigmoid: it learns, and it never decides."""
    return torch.sigmoid(score)


def straight_through(score: Tensor) -> Tensor:
    """The value of the step, the gradient of the sigmoid."""
    open_ = torch.sigmoid(score)
    return (score > 0).to(score.dtype) + (open_ - open_.detach())


FORMS: dict[str, Form] = {
    "compare": compare,
    "round": rounded,
    "soft": soft,
    "straight-through": straight_through,
}
FORM_KNOB = "gate"


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    gate: str = choice("straight-through", FORMS, "how a score becomes an open or a shut gate")
    spared: int = dial(0, 0, GENES, 1, "genes", "whose gate is straight-through in any case")
    scale: float = dial(0, -12, 6, 1, "powers of 10", "by which the loss is multiplied")


CASES = {
    "healthy": Settings(),
    "broken": Settings(gate="round"),
    "severed": Settings(gate="compare"),
    "spared": Settings(gate="round", spared=1),
    "scaled": Settings(scale=-12),
    "repaired": Settings(gate="straight-through"),
}
CHANGED = "what is healthy must come out as it went in: a gate is open or shut, 0 or 1, and the "
CHANGED += "gradient that passes is the one of the sigmoid."


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """One training step of the trained model on 64 real cells, a gate before each gene.

    Args:
        settings: the knobs.
        repair: a function of the scores, shape (gene,), in place of the chosen gate.
    """
    form, batch = repair or FORMS[settings.gate], cells()
    model = Gated(form, round(settings.spared))
    report = trace(lambda: loss(model, batch, settings.scale), model=model)
    deaf, count = 0, 0
    if report.losses and report.verdict in (Verdict.HEALTHY, Verdict.DEAD, Verdict.SEVERED):
        mine = gradients(loss(model, batch), model)["score"]
        taught = _truth() != 0
        deaf, count = int(((mine == 0) & taught).sum()), int(taught.sum())
        report = _judged(report, deaf / count)
    with torch.no_grad():
        reference = loss(model.double(), cells("float64"), settings.scale)
    note = f"{deaf} of {count} gates hear nothing" if deaf else ""
    value = report.losses[0] if report.losses else float("nan")
    return Reading(settings, report.verdict, report, value, float(reference), note)


class Gated(nn.Module):
    """The trained VAE, with a gate for each gene in front of its encoder."""

    def __init__(self, form: Form, spared: int = 0):
        super().__init__()
        self.vae: NBVAE = trained_vae()
        drawn = torch.randn(GENES, generator=Generator().manual_seed(0))
        self.score = nn.Parameter(drawn + 1.0)  # most gates are open
        self.form, self.spared = form, spared

    def forward(self) -> Tensor:
        """Gates, shape (gene,)."""
        if not self.spared:
            return self.form(self.score)
        kept, other = self.score.tensor_split([self.spared])
        return torch.cat([straight_through(kept), self.form(other)])


def loss(model: Gated, batch: Cells, scale: float = 0.0, seed: int = 0) -> Tensor:
    """Negative ELBO in nats per cell, times 10 to the power of `scale`; the encoder is gated."""
    mu_z, logvar_z = model.vae.encoder(batch.counts * model(), batch.tissue)
    z = sample_z(mu_z, logvar_z, Generator().manual_seed(seed))
    log_mu, log_r = model.vae.decoder(z, batch.tissue, batch.library, as_logs=True)
    log_p = nb_log_likelihood_from_logs(batch.counts, log_mu, REPAIRED.log_r(log_r))
    total = kl_standard_normal(mu_z, logvar_z).mean() - log_p.sum(-1).mean()
    return total * 10.0**scale if scale else total


def step(form: str = "round", spared: int = 0, scale: float = 0.0) -> tuple[Gated, Tensor]:
    """A model and the loss of one step on it, before any backward: something to look at."""
    model = Gated(FORMS[form], spared)
    return model, loss(model, cells(), scale)


def encoded(form: str) -> tuple[Tensor, dict[str, nn.Parameter]]:
    """A small program to draw: the sum of the latent means of gated cells, and its parameters."""
    model, batch = Gated(FORMS[form]), cells()
    mu_z, _ = model.vae.encoder(batch.counts * model(), batch.tissue)
    used = {"score": model.score, "fc_mu.weight": model.vae.encoder.fc_mu.weight}
    used["input_layer.weight"] = model.vae.encoder.input_layer.weight
    return mu_z.sum(), used


def _judged(report: Report, deaf: float) -> Report:
    """*dead*, where most entries of the score hear nothing.

    The tracer judges a whole parameter: one living entry is enough for it.
    """
    if deaf < HIDDEN or report.verdict != Verdict.HEALTHY:
        return report
    fates = tuple(replace(f, word="zero") if f.name == "score" else f for f in report.parameters)
    culprit = blamed(_decision(report), f"{deaf:.1%} of the gates behind it hear nothing")
    return replace(report, verdict=Verdict.DEAD, culprit=culprit, parameters=fates)


def _decision(report: Report) -> Op:
    """The op that takes the slope: a cut, or the last one of the form before the gates are used."""
    forward = [op for op in report.ops if op.phase == "forward"]
    used = next(op for op in forward if op.function == "loss")
    aside = ("straight_through", "Gated.forward")
    form = [op for op in forward if op.index < used.index and op.function not in aside]
    return next((op for op in form if op.cut), form[-1] if form else used)


@lru_cache(maxsize=1)
def _truth() -> Tensor:
    """The gradient of the scores behind the library's own gate."""
    model = Gated(straight_through)
    return gradients(loss(model, cells()), model)["score"]


@lru_cache(maxsize=2)
def cells(dtype: str = "float32") -> Cells:
    """The 64 cells of the step."""
    return load_pbmc().train[:64].to(getattr(torch, dtype))
