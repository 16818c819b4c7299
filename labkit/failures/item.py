"""item: a number has a value and no history; what is added to it afterwards trains alone.

A loss of several terms, one of them turned into a Python number, keeps its value. ``backward``
runs, since the other terms have a graph. What only the number would have taught is never taught.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import nan

import torch
from torch import Generator, Tensor

from labkit.bench import Claim, Reading, choice, dial
from labkit.cells.data import Cells, load_pbmc
from labkit.failures._held import Held
from labkit.failures._whole import Gradients, gradients, judged
from labkit.models.likelihood import kl_standard_normal, nb_log_likelihood_from_logs
from labkit.models.vae import NBVAE, sample_z
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict
from labkit.training.train import trained_vae

Form = Callable[[Tensor, Tensor], Tensor]

TITLE = "item"
NICKNAME = "a number has no past"
SYMPTOM = "backward runs, the loss is right, and half of the parameters have no gradient."
CLAIM = Claim(
    quote="combined_loss = loss_value + regularization  # 无法反向传播",
    translation="combined_loss = loss_value + regularization: cannot be back-propagated",
    verdict="holds with a condition",
    truth="It can: the regulariser has a graph, so backward runs without an error and trains the "
    "regulariser alone. Only if no term has a graph does it fail.",
)
SOURCES = (
    "PyTorch documentation, torch.Tensor.item, torch.tensor and torch.Tensor.numpy",
    "PyTorch documentation, Autograd mechanics: how autograd encodes the history",
    "Bengio, Leonard and Courville (2013), Estimating or Propagating Gradients Through "
    "Stochastic Neurons: a step function has slope zero wherever it has one",
)
CARD = {
    "cause": "A term of the loss became a number: .item(), float(), .numpy(), .data, torch.tensor.",
    "repair": "Add tensors; take the number for the log from the finished loss.",
    "proof": "Every parameter that the optimizer holds has a gradient, and it is the true one.",
}


def tensors(reconstruction: Tensor, kl: Tensor) -> Tensor:
    """Two tensors are added."""
    return reconstruction + kl


def number(reconstruction: Tensor, kl: Tensor) -> Tensor:
    """The guide's wrong form: one term is a Python number."""
    return reconstruction.item() + kl


def array(reconstruction: Tensor, kl: Tensor) -> Tensor:
    """One term goes through NumPy."""
    return torch.from_numpy(reconstruction.detach().numpy()) + kl


def data(reconstruction: Tensor, kl: Tensor) -> Tensor:
    """One term by its .data."""
    return reconstruction.data + kl


def numbers(reconstruction: Tensor, kl: Tensor) -> Tensor:
    """Both terms are numbers in a list; requires_grad=True silences the error."""
    terms = [reconstruction.item(), kl.item()]
    return torch.tensor(terms, dtype=kl.dtype, requires_grad=True).sum()


FORMS: dict[str, Form] = {
    "tensors": tensors,
    "item": number,
    "numpy": array,
    "data": data,
    "list": numbers,
}
FORM_KNOB = "total"


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    kl: float = dial(1.0, 0.0, 4.0, 0.5, "", "weight of the KL, the term that stays a tensor")
    cells: float = dial(64, 2, 128, 2, "", "in the batch")
    total: str = choice("tensors", FORMS, "how reconstruction and KL become one loss")


CASES = {
    "healthy": Settings(),
    "broken": Settings(total="item"),
    "all": Settings(total="list"),
    "repaired": Settings(total="tensors"),
}
HINTS = {
    Verdict.WRONG: "the total or its gradient is far from float64: a term came without its "
    "history, or not whole. Add the tensors as they are.",
}


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """One training step of the trained model on real cells.

    Args:
        settings: the knobs.
        repair: a function of two scalars, the reconstruction and the weighted KL, in place of
            the chosen total.
    """
    form, model, cells = repair or FORMS[settings.total], trained_vae(), _cells(settings.cells)
    report = trace(lambda: form(*parts(model, cells, settings.kl)), model=model)
    reference, truth = _truth(settings.kl, settings.cells)
    if report.verdict in (Verdict.HEALTHY, Verdict.SEVERED):
        again = trained_vae()
        mine = gradients(form(*parts(again, cells, settings.kl)), again)
        report = judged(report, mine, truth)
    value = report.losses[0] if report.losses else nan
    return Reading(settings, report.verdict, report, value, reference)


def parts(model: NBVAE, cells: Cells, kl: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Reconstruction and weighted KL, in nats per cell."""
    noise = Generator().manual_seed(seed)
    mu_z, logvar_z = model.encoder(cells.counts, cells.tissue)
    z = sample_z(mu_z, logvar_z, noise)
    log_mu, log_r = model.decoder(z, cells.tissue, cells.library, as_logs=True)
    log_p = nb_log_likelihood_from_logs(cells.counts, log_mu, log_r)
    return -log_p.sum(-1).mean(), kl * kl_standard_normal(mu_z, logvar_z).mean()


def courses(steps: int = 60, lr: float = 5e-3) -> dict[str, list[float]]:
    """Reconstruction while the trained model goes on training, by form."""
    return {name: _course(FORMS[name], steps, lr) for name in ("tensors", "item")}


def _course(form: Form, steps: int, lr: float) -> list[float]:
    model, cells, path = trained_vae(), _cells(64), []
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for step in range(steps):
        reconstruction, kl = parts(model, cells, seed=step)
        optimizer.zero_grad()
        form(reconstruction, kl).backward()
        optimizer.step()
        path.append(float(reconstruction.detach()))
    return path


EXITS: dict[str, Callable[[Tensor], Tensor]] = {
    "t * 1": lambda t: t * 1,
    "torch.stack([t])": lambda t: torch.stack([t]),
    "torch.as_tensor(t)": torch.as_tensor,
    "torch.tensor(t.tolist())": lambda t: torch.tensor(t.tolist()),
    "t.detach().numpy()": lambda t: torch.from_numpy(t.detach().numpy()),
    "t.data": lambda t: t.data,
    "t.argmax()": lambda t: t.argmax(),
    "(t > 0).float()": lambda t: (t > 0).float(),
    "t.round()": lambda t: t.round(),
    "t.softmax(-1)": lambda t: t.softmax(-1),
}


def exits() -> dict[str, str]:
    """What becomes of a gradient on each way: alive, zero everywhere, or no graph at all."""
    return {name: _fate(way) for name, way in EXITS.items()}


def _fate(way: Callable[[Tensor], Tensor]) -> str:
    t = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    out = way(t)
    if not out.requires_grad:
        return "no graph"
    weights = torch.arange(out.numel(), dtype=out.dtype).view(out.shape)
    gradient = torch.autograd.grad((out * weights).sum(), t)[0]
    return "alive" if gradient.any() else "zero"


def megabytes_logged(steps: int = 10) -> dict[str, float]:
    """Saved tensors that a list of losses keeps alive after some steps, in MB."""
    keep = {"loss": lambda t: t, "loss.detach()": Tensor.detach, "loss.item()": Tensor.item}
    cells = _cells(64)

    def log(how: Callable) -> list:
        model = trained_vae()
        return [how(tensors(*parts(model, cells, seed=step))) for step in range(steps)]

    return {name: round(Held(lambda how=how: log(how)).now / 1e6, 1) for name, how in keep.items()}


@lru_cache(maxsize=128)
def _truth(kl: float, count: float) -> tuple[float, Gradients]:
    """The loss in float64, and its gradient."""
    model = trained_vae().double()
    value = tensors(*parts(model, _cells(count).to(torch.float64), kl))
    return float(value.detach()), gradients(value, model)


@lru_cache(maxsize=64)
def _cells(count: float) -> Cells:
    return load_pbmc().train[: int(count)]
