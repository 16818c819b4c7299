"""Exploding log-variance: the KL's exp overflows long before the sampler's does.

A VAE uses its log-variance twice: the sampler needs ``exp(logvar / 2)``, the KL divergence needs
``exp(logvar)``. The second has no half in its exponent, so it overflows at half the distance.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from labkit.bench import Claim, Reading, choice, dial
from labkit.cells.data import Cells
from labkit.failures._batch import batch, shifted
from labkit.failures._by_hand import cap
from labkit.models.guards import Guard, hard_clamp, straight_through, unguarded
from labkit.models.likelihood import kl_standard_normal_guide, nb_log_likelihood_from_logs
from labkit.models.vae import NBVAE, sample_z
from labkit.probes.trace import trace
from labkit.training.train import safe_step

Form = Callable[[Tensor], Tensor]
# Only logvar shall break here, so the decoder's two outputs are held where exp of them is safe.
CAP_LOG_MU = Guard("log_mu", "straight_through", -30.0, 15.0)
CAP_LOG_R = Guard("log_r", "straight_through", -8.0, 12.0)


TITLE = "Exploding log-variance"
NICKNAME = "the exponent without the half"
SYMPTOM = "The loss is Inf from one step to the next; two steps later every weight is NaN."
CLAIM = Claim(
    quote="logvar过大 >20 → exp溢出 → std=Inf",
    translation="logvar too large (> 20): exp overflows and std = Inf",
    verdict="false",
    truth="At 20, std is 22026. In float32 the KL's exp(logvar) overflows first, at 88.72; "
    "std follows only at 177.45.",
)
SOURCES = (
    "Kingma and Welling (2014), Auto-Encoding Variational Bayes, eq. 10 and appendix B",
    "Bengio, Leonard and Courville (2013), Estimating or Propagating Gradients Through "
    "Stochastic Neurons: the straight-through estimator",
    "IEEE 754-2019: the largest finite binary32 is (2 - 2**-23) * 2**127, its log is 88.7228",
)
CARD = {
    "cause": "The KL needs exp(logvar), without the factor 1/2 that the sampler has.",
    "repair": "Cap the value of logvar and let its gradient pass: straight-through.",
    "proof": "The loss is finite, and the gradient of fc_logvar is not zero.",
}
BY_HAND = (
    (
        cap,
        "the model is well, the guard is not what was asked: what is in [-10, 10] stays as it is, "
        "what is beyond comes out at the edge, and a gradient that leads back comes through whole.",
    ),
)
FORMS: dict[str, Form] = {
    "none": unguarded,
    "clamp": hard_clamp,
    "straight-through": straight_through,
}
FORM_KNOB = "guard"
DTYPES = ("float16", "bfloat16", "float32", "float64")
MAP = {"shift": range(-40, 201, 20), "dtype": DTYPES}


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    shift: float = dial(0.0, -40, 200, 0.5, "nats", "added to the encoder's log-variance")
    dtype: str = choice("float32", DTYPES, "of model and data")
    guard: str = choice("none", FORMS, "applied to logvar before the sampler and the KL")


CASES = {
    "healthy": Settings(),
    "broken": Settings(shift=90.0),
    "repaired": Settings(shift=90.0, guard="straight-through"),
}


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """One training step of the trained model on 64 real cells, its log-variance shifted.

    Args:
        settings: the knobs.
        repair: a function of logvar, shape (cell, latent), in place of the chosen guard.
    """
    guard = repair or FORMS[settings.guard]
    model, cells = _prepared(settings.shift, settings.dtype)
    report = trace(lambda: loss(model, cells, guard), model=model)
    with torch.no_grad():
        reference = loss(*_prepared(settings.shift, "float64"), guard)
    return Reading(settings, report.verdict, report, report.losses[0], float(reference))


def loss(model: NBVAE, cells: Cells, guard: Form, seed: int = 0) -> Tensor:
    """Negative ELBO in nats per cell, with one guard in front of both uses of logvar."""
    noise = torch.Generator().manual_seed(seed)
    mu_z, logvar_z = model.encoder(cells.counts, cells.tissue)
    logvar_z = guard(logvar_z)
    z = sample_z(mu_z, logvar_z, noise)
    log_mu, log_r = model.decoder(z, cells.tissue, cells.library, as_logs=True)
    log_p = nb_log_likelihood_from_logs(cells.counts, CAP_LOG_MU(log_mu), CAP_LOG_R(log_r))
    return kl_standard_normal_guide(mu_z, logvar_z).mean() - log_p.sum(-1).mean()


def recoveries(shift: float = 90.0, steps: int = 120, lr: float = 5e-3) -> dict[str, list[float]]:
    """Train from a shifted log-variance under each guard; mean log-variance after every step."""
    return {name: _recovery(guard, shift, steps, lr) for name, guard in FORMS.items()}


def _recovery(guard: Form, shift: float, steps: int, lr: float) -> list[float]:
    model, cells = _prepared(shift, "float32")
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    path = []
    for step in range(steps):
        safe_step(loss(model, cells, guard, seed=step), optimizer, model.parameters(), max_norm=10)
        with torch.no_grad():
            path.append(float(model.encoder(cells.counts, cells.tissue)[1].mean()))
    return path


def _prepared(shift: float, dtype: str) -> tuple[NBVAE, Cells]:
    """A fresh copy of the trained model, its log-variance shifted, and 64 cells, in one dtype."""
    kind = getattr(torch, dtype)
    return shifted("encoder.fc_logvar.bias", shift, kind), batch(kind)
