"""Half precision: numbers get lost below, above and beside, and nothing need be infinite.

float16 ends at 65504 and at 6e-8, bfloat16 has eight bits of precision. A model that is moved into
either loses the optimizer's eps, small gradients and small updates. Three repairs belong together:
weights in float32, matrix products in half precision, and a loss that is scaled.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from labkit.bench import Claim, Reading, choice, dial
from labkit.failures._batch import batch
from labkit.failures._whole import blamed
from labkit.models.guards import REPAIRED, unguarded
from labkit.models.vae import NBVAE, elbo_loss
from labkit.probes.report import Fate, Op, Report
from labkit.probes.stats import histogram
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict
from labkit.training.train import trained_vae

Loss = Callable[[nn.Module], Tensor]
Form = Callable[[nn.Module, Optimizer, Loss, torch.dtype], Tensor]
GUARDS = replace(REPAIRED, counts=unguarded)  # counts above 2048 are no integers in half precision
SCALE = 2.0**10  # of the loss: at 2**4 small gradients vanish, at 2**12 large ones overflow

TITLE = "Half precision"
NICKNAME = "lost in rounding"
SYMPTOM = (
    "After model.half() the loss is fine, the gradients are fine, and one step later all is NaN."
)
CLAIM = Claim(
    quote="mu = F.softplus(self.fc_mu(h)) + eps  # 确保>0",
    translation="mu = softplus(fc_mu(h)) + eps: this ensures that mu is above 0",
    verdict="holds with a condition",
    truth="eps = 1e-8 is exactly 0 in float16, whose smallest number is 6e-8. So is Adam's eps, "
    "and it divides by it.",
)
SOURCES = (
    "Micikevicius et al. (2018), Mixed Precision Training, ICLR: float32 weights, loss scaling",
    "Kalamkar et al. (2019), A Study of BFLOAT16 for Deep Learning Training",
    "IEEE 754-2019: binary16 has 11 significant bits, from 2**-24 to 65504",
    "PyTorch documentation, Automatic Mixed Precision: what runs in which dtype",
)
CARD = {
    "cause": "Weights, optimizer state or gradients live in a dtype that cannot hold them.",
    "repair": "Weights in float32, autocast for the forward pass, a scaled loss for float16.",
    "proof": "The run ends where float64 does, and no gradient is zero that should not be.",
}


def pure(model: nn.Module, optimizer: Optimizer, loss: Loss, dtype: torch.dtype) -> Tensor:
    """The whole model, its gradients and the optimizer's state in half precision."""
    model.to(dtype)
    optimizer.zero_grad()
    value = loss(model)
    value.backward()
    optimizer.step()
    return value


def larger_eps(model: nn.Module, optimizer: Optimizer, loss: Loss, dtype: torch.dtype) -> Tensor:
    """The same, with an eps that float16 can hold."""
    for group in optimizer.param_groups:
        group["eps"] = 1e-4
    return pure(model, optimizer, loss, dtype)


def autocast(model: nn.Module, optimizer: Optimizer, loss: Loss, dtype: torch.dtype) -> Tensor:
    """Weights in float32, matrix products in half precision."""
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        value = loss(model)
    value.backward()
    optimizer.step()
    return value


def scaled(model: nn.Module, optimizer: Optimizer, loss: Loss, dtype: torch.dtype) -> Tensor:
    """The same, with the loss scaled on its way down, so that small gradients arrive."""
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        value = loss(model)
    (value * SCALE).backward()
    for p in model.parameters():
        p.grad.div_(SCALE)
    optimizer.step()
    return value


FORMS: dict[str, Form] = {
    "pure": pure,
    "larger eps": larger_eps,
    "autocast": autocast,
    "scaled": scaled,
}
FORM_KNOB = "step"


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    dtype: str = choice(
        "float32", ("float16", "bfloat16", "float32"), "of what is in low precision"
    )
    power: float = dial(0.0, 0, 6, 0.5, "", "the loss is 10 to this times smaller, as a mean is")
    rate: float = dial(-3.0, -6, -2.5, 0.5, "", "log10 of Adam's learning rate")
    step: str = choice("scaled", FORMS, "how a training step is taken")


CASES = {
    "healthy": Settings(),
    "broken": Settings(dtype="float16", step="pure"),
    "rounded": Settings(dtype="bfloat16", rate=-4.0, step="pure"),
    "underflow": Settings(dtype="float16", power=5.0, step="autocast"),
    "repaired": Settings(dtype="float16"),
}
HINTS = {
    Verdict.NAN: "look at what the optimizer divides by. In float16 the square of 1e-4 is 0, and "
    "so is an eps of 1e-8. Leave the weights in float32: torch.autocast does the rest. Or was "
    "the scaled loss above 65504 on its way?",
    Verdict.FROZEN: "an update that is smaller than half a unit in the last place of its weight is "
    "no update. Leave the weights in float32.",
    Verdict.DEAD: "small gradients are exactly zero: float16 ends at 6e-8. Multiply the loss by a "
    "power of two, and divide the gradients by it before the step.",
    Verdict.WRONG: "the run ends elsewhere than in float64, or nothing ran in the dtype that was "
    "asked for. Weights in float32, matrix products in half precision, the loss scaled.",
}
CHECKS = (
    (Settings(dtype="float16", power=6.0), Verdict.HEALTHY, HINTS[Verdict.DEAD]),
    (Settings(dtype="bfloat16", rate=-5.0), Verdict.HEALTHY, HINTS[Verdict.FROZEN]),
)
CHANGED = "divide the gradients by the scale before the step; float32 must stay as it is."
STEPS = 2
LOST = 0.1  # of a parameter's entries: zero, and in float64 not
OFF = 1e-3  # of the loss at the end, relative to float64; rounding of a good run stays near 1e-5


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """Two training steps on 64 real cells from the trained model; then the loss, in float64.

    Args:
        settings: the knobs.
        repair: a function that takes a training step. It gets the model with float32 weights,
            Adam over them, a function of the model to its loss, and the dtype; it returns the
            loss.
    """
    form, dtype = repair or FORMS[settings.step], getattr(torch, settings.dtype)
    model = trained_vae()
    optimizer = torch.optim.Adam(model.parameters(), lr=10.0**settings.rate)
    losses = iter([_loss(settings.power, seed) for seed in range(STEPS)])
    batch(dtype), batch()  # loaded here, so that a trace holds no loading
    take = lambda: form(model, optimizer, next(losses), dtype)  # noqa: E731
    report = trace(take, model=model, optimizers=optimizer, steps=STEPS)
    gradients = {name: p.grad for name, p in model.named_parameters()}
    value, (truth, true_gradients) = _end(model), _truth(settings.power, settings.rate)
    lost = {name: _lost(gradients[name], true) for name, true in true_gradients.items()}
    used = tuple(_used(fate, gradients[fate.name]) for fate in report.parameters)
    report = replace(report, parameters=used)
    report = _judged(report, lost, abs(value / truth - 1), settings.dtype)
    return Reading(settings, report.verdict, report, value, truth)


def courses(rate: float = 1e-4, steps: int = 60) -> dict[str, list[float]]:
    """Train in bfloat16 with two forms; the loss of every step."""
    return {name: _course(FORMS[name], rate, steps) for name in ("pure", "autocast")}


def _course(form: Form, rate: float, steps: int) -> list[float]:
    model, loss = trained_vae(), _loss(0.0, 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    return [float(form(model, optimizer, loss, torch.bfloat16).detach()) for _ in range(steps)]


def _loss(power: float, seed: int) -> Loss:
    """Negative ELBO, 10 to the power times smaller, of the cells in the model's own dtype."""

    def loss(model: NBVAE) -> Tensor:
        cells, noise = batch(model.encoder.fc_mu.weight.dtype), Generator().manual_seed(seed)
        x, tissue, library = cells.counts, cells.tissue, cells.library
        return elbo_loss(x, tissue, model, library, GUARDS, generator=noise)[0] * 10.0**-power

    return loss


@torch.no_grad()
def _end(model: NBVAE) -> float:
    """The loss of the weights as they are, computed in float64."""
    return float(_loss(0.0, STEPS)(deepcopy(model).double()))


@lru_cache(maxsize=256)
def _truth(power: float, rate: float) -> tuple[float, dict[str, Tensor]]:
    """Where the same steps end in float64, and the gradient of the last one."""
    model = trained_vae().double()
    optimizer = torch.optim.Adam(model.parameters(), lr=10.0**rate)
    for seed in range(STEPS):
        pure(model, optimizer, _loss(power, seed), torch.float64)
    gradients = {name: p.grad.float() * 10.0**power for name, p in model.named_parameters()}
    return _end(model), gradients


def _lost(gradient: Tensor | None, true: Tensor) -> float:
    """Share of the entries that are zero, and in float64 not."""
    gradient = torch.zeros_like(true) if gradient is None else gradient
    return float(((gradient == 0) & (true != 0)).sum() / (true != 0).sum())


def _judged(report: Report, lost: dict[str, float], off: float, dtype: str) -> Report:
    """The report, or one that tells what only a comparison with float64 can know."""
    if report.verdict not in (Verdict.HEALTHY, Verdict.VANISHING):
        return report
    products = [op for op in report.ops if op.phase == "forward" and op.name in ("addmm", "linear")]
    if dtype not in {stats.dtype for op in products for stats in op.outputs}:
        remark = f"this ran in {products[0].outputs[0].dtype}, not in {dtype}"
        return _blamed(report, Verdict.WRONG, products[0], remark, {})
    if gone := {name: "zero" for name, share in lost.items() if share > LOST}:
        name = max(lost, key=lost.__getitem__)
        layer = name.rpartition(".")[0]
        backward = next(o for o in report.ops[::-1] if o.phase == "backward" and o.module == layer)
        remark = f"{lost[name]:.0%} of the gradient of {name} is exactly zero, in float64 it is not"
        return _blamed(report, Verdict.DEAD, backward, remark, gone)
    if not off <= OFF:
        step = next((op for op in report.ops[::-1] if op.phase == "optimizer"), report.ops[-1])
        return _blamed(report, Verdict.WRONG, step, f"the run ends {off:.0e} away from float64", {})
    return replace(report, verdict=Verdict.HEALTHY, culprit=None, chain=())


def _used(fate: Fate, gradient: Tensor | None) -> Fate:
    """The fate with the gradient that the optimizer got, if it is finite: unscaled."""
    if gradient is None or not gradient.isfinite().all():
        return fate
    return replace(fate, gradient=histogram(gradient), norm=float(gradient.double().norm()))


def _blamed(report: Report, verdict: Verdict, op: Op, remark: str, words: dict[str, str]) -> Report:
    fates = tuple(replace(f, word=words.get(f.name, f.word)) for f in report.parameters)
    return replace(report, verdict=verdict, culprit=blamed(op, remark), chain=(), parameters=fates)
