"""detach: where it cuts the only way, backward fails; where it cuts one of two, nothing does.

In a VAE the log-variance reaches the loss twice, by the sample and by the KL. A ``detach`` in the
sample leaves the KL's gradient: finite, not zero, and pointing away from the data.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import nan

import torch
from torch import Generator, Tensor

from labkit.bench import Claim, Reading, choice, dial
from labkit.cells.data import Cells
from labkit.failures._batch import batch, shifted
from labkit.failures._whole import Gradients, gradients, judged
from labkit.models.likelihood import kl_standard_normal, nb_log_likelihood_from_logs
from labkit.models.vae import NBVAE
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict
from labkit.training.train import trained_vae

Form = Callable[[Tensor, Tensor, Tensor], Tensor]
TIDY = 0.1  # the largest std in the copy that is edited for a log; most real ones are larger
NUDGE = 1e-4  # of the finite difference in float64: truncation near 1e-8, rounding near 1e-9

TITLE = "detach"
NICKNAME = "one of two ways"
SYMPTOM = "Gradients are finite and not zero, and the spread of the latent state drifts to one."
CLAIM = Claim(
    quote="z_detached = z.detach()  # ← 切断梯度 … 梯度无法传到encoder",
    translation="z_detached = z.detach() cuts the gradient: it cannot reach the encoder",
    verdict="holds with a condition",
    truth="True if that was the only way. Where another leads to the same parameter, a gradient "
    "arrives, finite, not zero and wrong, and no check for None or zero sees it.",
)
SOURCES = (
    "Kingma and Welling (2014), Auto-Encoding Variational Bayes, section 2.4: the "
    "reparameterisation z = mu + std * noise",
    "PyTorch documentation, torch.Tensor.detach: shared storage, in-place changes",
    "PyTorch documentation, Autograd mechanics: in-place correctness checks",
)
CARD = {
    "cause": "A detach (or .data) on one of several ways from a parameter to the loss.",
    "repair": "Keep every way that shall teach in the graph; detach what leaves it, for good.",
    "proof": "The gradient agrees with a finite difference of the loss.",
}


def whole(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """The sample teaches both, mean and spread."""
    return mu + torch.exp(0.5 * logvar) * noise


def noise_cut(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """The random part is detached, as if it were a constant."""
    return mu + (torch.exp(0.5 * logvar) * noise).detach()


def state_cut(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """The guide's example: the latent state is detached."""
    return whole(mu, logvar, noise).detach()


def copy_edited(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """A detached copy is tidied up for a log; it shares its memory with std."""
    std = torch.exp(0.5 * logvar)
    z = mu + std * noise
    std.detach().clamp_(max=TIDY)
    return z


def data_edited(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """The same through .data, which autograd does not see."""
    std = torch.exp(0.5 * logvar)
    z = mu + std * noise
    std.data.clamp_(max=TIDY)
    return z


FORMS: dict[str, Form] = {
    "whole": whole,
    "noise": noise_cut,
    "state": state_cut,
    "copy": copy_edited,
    "data": data_edited,
}
FORM_KNOB = "sample"


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    kl: float = dial(1.0, 0.0, 4.0, 0.5, "", "weight of the KL, the second way to the loss")
    shift: float = dial(0.0, -4.0, 4.0, 0.5, "nats", "added to the encoder's log-variance")
    sample: str = choice("whole", FORMS, "how the latent state is drawn")


CASES = {
    "healthy": Settings(),
    "broken": Settings(sample="noise"),
    "sole": Settings(kl=0.0, sample="state"),
    "edited": Settings(sample="data"),
    "repaired": Settings(sample="whole"),
}
HINTS = {
    Verdict.WRONG: "a gradient arrives, and it is not the slope of the loss: one of its ways is "
    "cut, or a value that backward needs was edited. Let the sample keep its whole graph.",
}


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """One training step of the trained model on 64 real cells.

    Args:
        settings: the knobs.
        repair: a function of the mean, the log-variance and the noise, each (cell, latent), in
            place of the chosen sample; it returns the latent state.
    """
    form, cells = repair or FORMS[settings.sample], batch()
    model = shifted("encoder.fc_logvar.bias", settings.shift)
    report = trace(lambda: loss(model, cells, form, settings.kl), model=model)
    reference, truth = _truth(settings.kl, settings.shift)
    if report.verdict in (Verdict.HEALTHY, Verdict.WRONG):
        report = judged(report, gradients(loss(model, cells, form, settings.kl), model), truth)
    value = report.losses[0] if report.losses else nan
    return Reading(settings, report.verdict, report, value, reference)


def loss(model: NBVAE, cells: Cells, sample: Form, kl: float = 1.0, seed: int = 0) -> Tensor:
    """Negative ELBO in nats per cell; the latent state is drawn by a form."""
    generator = Generator().manual_seed(seed)
    mu_z, logvar_z = model.encoder(cells.counts, cells.tissue)
    noise = torch.randn(mu_z.shape, generator=generator).to(mu_z.dtype)
    z = sample(mu_z, logvar_z, noise)
    log_mu, log_r = model.decoder(z, cells.tissue, cells.library, as_logs=True)
    log_p = nb_log_likelihood_from_logs(cells.counts, log_mu, log_r)
    total = -log_p.sum(-1).mean()
    return total + kl * kl_standard_normal(mu_z, logvar_z).mean() if kl else total


def slopes() -> dict[str, tuple[float, float]]:
    """Slope of the loss along a common shift of every log-variance, in float64.

    Returns:
        For each form that can be differentiated: what autograd says, and a finite difference.
    """
    found = {}
    for name in ("whole", "noise", "state", "data"):
        model, cells = trained_vae().double(), batch(torch.float64)
        bias = model.encoder.fc_logvar.bias
        said = float(torch.autograd.grad(loss(model, cells, FORMS[name]), bias)[0].sum())
        ends = []
        with torch.no_grad():
            for nudge in (NUDGE, -2 * NUDGE):
                bias += nudge
                ends.append(float(loss(model, cells, FORMS[name])))
        found[name] = (said, (ends[0] - ends[1]) / (2 * NUDGE))
    return found


def courses(steps: int = 100, lr: float = 5e-3) -> dict[str, list[float]]:
    """Mean log-variance while the trained model goes on training, by form."""
    return {name: _course(FORMS[name], steps, lr) for name in ("whole", "noise")}


def _course(form: Form, steps: int, lr: float) -> list[float]:
    model, cells, path = trained_vae(), batch(), []
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for step in range(steps):
        optimizer.zero_grad()
        loss(model, cells, form, seed=step).backward()
        optimizer.step()
        with torch.no_grad():
            path.append(float(model.encoder(cells.counts, cells.tissue)[1].mean()))
    return path


@lru_cache(maxsize=128)
def _truth(kl: float, shift: float) -> tuple[float, Gradients]:
    """The loss in float64, and its gradient."""
    model = shifted("encoder.fc_logvar.bias", shift, torch.float64)
    value = loss(model, batch(torch.float64), whole, kl)
    return float(value.detach()), gradients(value, model)
