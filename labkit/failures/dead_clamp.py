"""Dead clamp: a guard keeps the value in its range, and its gradient is exactly zero outside.

A clamp in front of every use of a value takes away each force that could bring the value back.
The loss stays finite and falls, since the rest of the model learns; one layer never moves again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.bench import Claim, Reading, choice, dial
from labkit.cells.data import Cells
from labkit.failures._batch import batch, shifted
from labkit.failures._by_hand import inward_cap
from labkit.models.guards import REPAIRED, Guards, hard_clamp, straight_through, unguarded
from labkit.models.vae import NBVAE, elbo_loss
from labkit.probes.trace import trace
from labkit.training.train import safe_step, trained_vae

Form = Callable[[Tensor], Tensor]


def softplus_cap(value: Tensor, low: float = -10.0, high: float = 10.0) -> Tensor:
    """A smooth clamp; outside, its slope falls as exp(-distance)."""
    value = high - F.softplus(high - value)
    return low + F.softplus(value - low)


def tanh_cap(value: Tensor, low: float = -10.0, high: float = 10.0) -> Tensor:
    """A smooth clamp; its slope falls as exp(-2 |value| / high), and inside it bends the value."""
    middle, half = (high + low) / 2, (high - low) / 2
    return middle + half * torch.tanh((value - middle) / half)


def inward(value: Tensor, low: float = -10.0, high: float = 10.0) -> Tensor:
    """Cap the value; outside, a gradient passes only if its step leads back to the range."""
    out = straight_through(value, low, high)
    if out.requires_grad:
        out.register_hook(lambda grad: grad.masked_fill(outward(value, grad, low, high), 0.0))
    return out


def outward(value: Tensor, grad: Tensor, low: float = -10.0, high: float = 10.0) -> Tensor:
    """Where a step against `grad` would take a value that is outside still further out."""
    return ((value < low) & (grad > 0)) | ((value > high) & (grad < 0))


TITLE = "Dead clamp"
NICKNAME = "the door that locks from outside"
SYMPTOM = "Loss and gradient norm look well, and one layer has not moved since the first step."
CLAIM = Claim(
    quote="elbo_loss: clamp logvar_z到[-10, 10]",
    translation="protection point 2: clamp the log-variance to [-10, 10] in the loss as well",
    verdict="incomplete guard",
    truth="Nothing overflows. But with both clamps a log-variance outside gets a gradient of "
    "exactly zero from the data and from the KL. With the sampler's clamp alone, the KL still "
    "pulls it back.",
)
SOURCES = (
    "Kingma and Welling (2014), Auto-Encoding Variational Bayes, appendix B: the KL that pulls",
    "Chua, Calandra, McAllister and Levine (2018), Deep Reinforcement Learning in a Handful of "
    "Trials, appendix A.1: the softplus cap of a log-variance",
    "Bengio, Leonard and Courville (2013), Estimating or Propagating Gradients Through "
    "Stochastic Neurons: the straight-through estimator",
    "Ballé, Hwang and Agustsson, TensorFlow Compression: lower_bound with the gradient "
    "identity_if_towards",
)
CARD = {
    "cause": "Outside its range a clamp has slope zero, and all ways to the loss lead through it.",
    "repair": "Cap the value, and let the gradient pass where it leads back into the range.",
    "proof": "Outside the range the gradient is not zero, and training brings the value back.",
}
FORMS: dict[str, Form] = {
    "none": unguarded,
    "clamp": hard_clamp,
    "softplus": softplus_cap,
    "tanh": tanh_cap,
    "straight-through": straight_through,
    "inward": inward,
}
FORM_KNOB = "guard"
SHIFTS = (-60, -40, -25, -15, -10, -5, 0, 5, 10, 15, 25, 50, 90, 140)
MAP = {"shift": SHIFTS, "guard": tuple(FORMS)}


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    shift: float = dial(0.0, -60, 140, 0.5, "nats", "added to the encoder's log-variance")
    guard: str = choice("clamp", FORMS, "keeps the log-variance in [-10, 10]")
    place: str = choice("both", ("both", "sampler"), "where it acts: sampler and KL, or sampler")
    dtype: str = choice(
        "float32", ("float16", "bfloat16", "float32", "float64"), "of model and data"
    )


CASES = {
    "healthy": Settings(),
    "broken": Settings(shift=-15.0),
    "repaired": Settings(shift=-15.0, guard="inward"),
    "above": Settings(shift=15.0),
}
WOUND = "pushed further out"


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """One training step of the trained model on 64 real cells, its log-variance shifted.

    Args:
        settings: the knobs.
        repair: a function of logvar, shape (cell, latent), in place of the chosen guard.
    """
    guard, found = repair or FORMS[settings.guard], []
    model, cells = _prepared(settings.shift, settings.dtype)
    watched = _guards(_watched(guard, found), settings.place)
    report = trace(lambda: loss(model, cells, watched), model=model)
    with torch.no_grad():
        truth = loss(*_prepared(settings.shift, "float64"), _guards(guard, settings.place))
    note = f"{found[0]} log-variances {WOUND}" if found and found[0] else ""
    return Reading(settings, report.verdict, report, report.losses[0], float(truth), note)


def stays(reading: Reading) -> bool:
    """No value outside the range is told to go further out."""
    return reading.verdict == "healthy" and WOUND not in reading.note


OUTWARD = (
    "alive, but some values outside are told to go further out, where nothing stops them. "
    "Let the gradient pass only where its step leads back, above the range and below it."
)
CHECKS = ((Settings(shift=15.0), stays, OUTWARD),)
BY_HAND = ((inward_cap, OUTWARD),)


def loss(model: NBVAE, cells: Cells, guards: Guards, seed: int = 0) -> Tensor:
    """Negative ELBO in nats per cell, in its stable form."""
    noise = torch.Generator().manual_seed(seed)
    x, tissue, library = cells.counts, cells.tissue, cells.library
    return elbo_loss(x, tissue, model, library, guards, generator=noise)[0]


def recoveries(
    shift: float = -40.0, steps: int = 80, forms: tuple[str, ...] = tuple(FORMS)
) -> dict[str, list[float]]:
    """Train from a shifted log-variance under some guards; its mean after every step."""
    return {name: _recovery(FORMS[name], shift, steps) for name in forms}


def still(shift: float = -40.0, steps: int = 40) -> list[str]:
    """Parameters that have the same bits before and after training behind the clamp."""
    model, before = _prepared(shift, "float32")[0], _prepared(shift, "float32")[0]
    _train(model, _guards(hard_clamp, "both"), steps)
    pairs = zip(model.named_parameters(), before.parameters(), strict=True)
    return [name for (name, after), old in pairs if torch.equal(after, old)]


def windups(steps: int = 150, cap: float = 5.0) -> dict[str, list[float]]:
    """Train with log r capped at the guide's 5, which the data exceed; the loss of every step."""
    losses = {}
    for name in ("straight-through", "inward"):
        guard = FORMS[name]
        guards = replace(REPAIRED, log_r=lambda log_r, guard=guard: guard(log_r, -cap, cap))
        losses[name] = _train(trained_vae(), guards, steps)
    return losses


def _recovery(guard: Form, shift: float, steps: int) -> list[float]:
    model, cells = _prepared(shift, "float32")
    path: list[float] = []

    @torch.no_grad()
    def look() -> None:
        path.append(float(model.encoder(cells.counts, cells.tissue)[1].mean()))

    _train(model, _guards(guard, "both"), steps, look)
    return path


def _train(model: NBVAE, guards: Guards, steps: int, after=lambda: None) -> list[float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for step in range(steps):
        value = loss(model, batch(), guards, seed=step)
        losses.append(safe_step(value, optimizer, model.parameters(), max_norm=10).loss)
        after()
    return losses


def _watched(guard: Form, found: list[int]) -> Form:
    """The same guard; `found` gets how many of its inputs the gradient pushes further out."""

    def watched(logvar: Tensor) -> Tensor:
        logvar.register_hook(lambda grad: found.append(int(outward(logvar, grad).sum())))
        return guard(logvar)

    return watched


def _guards(guard: Form, place: str) -> Guards:
    if place == "both":
        return replace(REPAIRED, logvar=guard)
    return replace(REPAIRED, logvar=unguarded, sample_logvar=guard)


def _prepared(shift: float, dtype: str) -> tuple[NBVAE, Cells]:
    """A fresh copy of the trained model, its log-variance shifted, and 64 cells, in one dtype."""
    kind = getattr(torch, dtype)
    return shifted("encoder.fc_logvar.bias", shift, kind), batch(kind)
