"""Bad initialisation: whether a start is too small or too large depends on depth, fan and head.

Each layer multiplies the signal by its gain, so a stack multiplies it by the gain to the power of
its depth. A size that is harmless in one layer is nothing, or an overflow, in sixteen.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from labkit.bench import Claim, Reading, choice, dial
from labkit.cells.data import Cells, load_pbmc
from labkit.failures._batch import batch
from labkit.failures._by_hand import he_size
from labkit.failures._whole import blamed
from labkit.models.guards import OFF, REPAIRED
from labkit.models.vae import NBVAE, elbo_loss
from labkit.probes.report import Report
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict
from labkit.training.safe_step import safe_step

Form = Callable[[Tensor, float], Tensor]
WIDTH = 64  # units of a hidden layer
COPY = 1e-4  # of the rows' length: float32 sums of equal terms differ by 1e-6, other rows by 1

TITLE = "Bad initialisation"
NICKNAME = "a number to the power of the depth"
SYMPTOM = "The loss falls a little and flattens, and a model with fewer layers learns better."
CLAIM = Claim(
    quote="训练前 … 检查模型初始化是否正常: check_gradient_flow(model)",
    translation="before training, check that the initialisation is normal: "
    "check_gradient_flow(model)",
    verdict="false",
    truth="Before a backward it says the same of every model, good or bad: no gradient, for all "
    "parameters. After one, it calls a layer normal whose units are copies of one another.",
)
SOURCES = (
    "He, Zhang, Ren and Sun (2015), Delving Deep into Rectifiers, section 2.2, eq. 10: the "
    "variance of a weight is 2 / fan_in",
    "Glorot and Bengio (2010), Understanding the difficulty of training deep feedforward neural "
    "networks, eq. 12",
    "PyTorch documentation, torch.nn.Linear: weights from U(-1/sqrt(fan_in), 1/sqrt(fan_in))",
)
CARD = {
    "cause": "Each layer scales the signal, and the depth is the exponent of that scale.",
    "repair": "Draw weights with variance 2 / fan_in before a ReLU; start exponents near zero.",
    "proof": "After one backward on real cells every layer's gradient is alive and of one size.",
}


def chosen(noise: Tensor, gain: float) -> Tensor:
    """A size that somebody chose; 1 is He's, and torch.nn.Linear's own is 0.41."""
    return noise * gain * sqrt(2 / noise.shape[1])


def xavier(noise: Tensor, gain: float) -> Tensor:
    """For layers without a ReLU: it does not count the half that a ReLU takes away."""
    return noise * sqrt(2 / (noise.shape[0] + noise.shape[1]))


def fan_out(noise: Tensor, gain: float) -> Tensor:
    """The wrong fan: it counts the units of the layer, not the inputs of a unit."""
    return noise * sqrt(2 / noise.shape[0])


def he(noise: Tensor, gain: float) -> Tensor:
    """Counts the inputs of a unit, and the half that a ReLU takes away."""
    return noise * sqrt(2 / noise.shape[1])


FORMS: dict[str, Form] = {"chosen": chosen, "xavier": xavier, "fan_out": fan_out, "he": he}
FORM_KNOB = "weights"


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    depth: float = dial(4, 1, 24, 1, "layers", "hidden layers of the encoder, 64 units each")
    gain: float = dial(0.4, 0.0, 3.0, 0.05, "", "size of 'chosen' weights, in units of He's")
    weights: str = choice("he", FORMS, "how a standard normal draw becomes the weights")
    draw: str = choice("normal", ("normal", "equal"), "what the weights are made of")
    bias: float = dial(0.0, -3.0, 3.0, 0.25, "", "start of every bias of the hidden layers")
    logvar: float = dial(0.0, -100.0, 200.0, 1.0, "nats", "added to the log-variance head's bias")
    log_r: float = dial(0.0, -40.0, 40.0, 1.0, "nats", "added to the dispersion head's bias")


CASES = {
    "healthy": Settings(),
    "broken": Settings(depth=16, weights="chosen"),
    "large": Settings(depth=16, weights="chosen", gain=1.4),
    "equal": Settings(draw="equal"),
    "dead": Settings(bias=-1.0),
    "repaired": Settings(depth=16),
}
SIZE = "the size of the signal changes from layer to layer. Count how many inputs a unit adds up, "
SIZE += "and what a ReLU keeps of a symmetric sum."
HINTS = dict.fromkeys((Verdict.VANISHING, Verdict.EXPLODING, Verdict.INF, Verdict.NAN), SIZE)
HINTS[Verdict.DEAD] = f"a gradient is exactly zero. It may have shrunk to that: {SIZE}"
CHANGED = "the size is nearly right, and not for these layers: each of their units adds up fan_in "
CHANGED += "= noise.shape[1] inputs, and a ReLU halves the mean square."
BY_HAND = ((he_size, CHANGED),)
REDRAWN = True  # weights may also be made orthogonal, say: that is another healthy run


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """The first training step of an NBVAE with a deep encoder on 64 real cells, no guard on.

    Args:
        settings: the knobs.
        repair: a function of noise, shape (fan_out, fan_in), and gain, in place of the chosen
            form; it returns the weights.
    """
    form = repair or FORMS[settings.weights]
    model, cells = started(settings, form), batch()
    report = trace(lambda: loss(model, cells), model=model)
    if settings.draw == "equal" and report.verdict == Verdict.HEALTHY:
        report = _judged(report, model, cells)
    signal: list[float] = []
    model.encoder.input_layer.register_forward_hook(partial(_measure, signal))
    with torch.no_grad():
        reference = loss(model.double(), batch(torch.float64))
    note = f"the hidden layers scale the signal by {signal[0]:.0e}"
    return Reading(settings, report.verdict, report, report.losses[0], float(reference), note)


class Drawn(nn.Module):
    """A linear layer whose weights are a form of its noise: the noise is what is trained."""

    def __init__(self, noise: Tensor, bias: float, form: Form, gain: float):
        super().__init__()
        self.noise = nn.Parameter(noise)
        self.bias = nn.Parameter(torch.full((len(noise),), bias))
        self.form, self.gain = form, gain

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.form(self.noise, self.gain), self.bias)


def started(settings: Settings, form: Form) -> NBVAE:
    """An untrained model, all of its starts as the knobs say."""
    model = NBVAE.for_cells(load_pbmc().train, hidden=WIDTH)
    generator = Generator().manual_seed(0)
    fan_in = model.encoder.input_layer.in_features
    layers: list[nn.Module] = []
    for _ in range(round(settings.depth)):
        noise = torch.randn(WIDTH, fan_in, generator=generator)
        if settings.draw == "equal":  # with He's scale every weight is 1 / fan_in: a mean
            noise.fill_(1 / sqrt(2 * fan_in))
        layers += [Drawn(noise, settings.bias, form, settings.gain), nn.ReLU()]
        fan_in = WIDTH
    model.encoder.input_layer = nn.Sequential(*layers[:-1])  # the encoder adds the last ReLU
    with torch.no_grad():
        model.encoder.fc_logvar.bias += settings.logvar
        model.decoder.fc_r.bias += settings.log_r
    return model


def loss(model: NBVAE, cells: Cells, seed: int = 0, guards=OFF) -> Tensor:
    """Negative ELBO in nats per cell; OFF: nothing hides what the start does."""
    noise = Generator().manual_seed(seed)
    x, tissue, library = cells.counts, cells.tissue, cells.library
    return elbo_loss(x, tissue, model, library, guards, generator=noise)[0]


def copied(model: NBVAE) -> list[bool]:
    """For each hidden layer: are all of its units still copies of one?"""
    return [_one(layer.noise.detach()) for layer in _drawn(model)]


def trained(settings: Settings, steps: int = 64, lr: float = 3e-3) -> tuple[list[float], NBVAE]:
    """Train from a start, all guards on: the loss of every step, and the model."""
    model, losses = started(settings, FORMS[settings.weights]), []
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for step in range(steps):
        value = loss(model, batch(), step, REPAIRED)
        losses.append(safe_step(value, optimizer, model.named_parameters(), max_norm=100).loss)
    return losses, model.requires_grad_(False)


def moved(settings: Settings, model: NBVAE) -> float:
    """How far the first layer is from its start, relative to its length."""
    start = _drawn(started(settings, FORMS[settings.weights]))[0].noise.detach()
    return float((_drawn(model)[0].noise - start).norm() / start.norm())


def _judged(report: Report, model: NBVAE, cells: Cells) -> Report:
    """*wrong*, where the units of a layer are copies and learn the same.

    Each gradient is alive, so the tracer cannot know: the layer was meant to have many units.
    """
    loss(model, cells).backward()
    layers = [i for i, layer in enumerate(_drawn(model)) if _one(layer.noise.grad)]
    if not layers:
        return report
    copies = f"input_layer.{2 * layers[0]}"
    op = next(op for op in report.ops if op.phase == "forward" and op.module.endswith(copies))
    remark = f"its {WIDTH} units are copies of one, and so are their gradients"
    named = {f"encoder.input_layer.{2 * i}.noise" for i in layers}
    fates = tuple(replace(f, word="wrong") if f.name in named else f for f in report.parameters)
    culprit = blamed(op, remark)
    return replace(report, verdict=Verdict.WRONG, culprit=culprit, parameters=fates)


def _one(rows: Tensor) -> bool:
    """Is every row the same, but for rounding?"""
    return bool((rows - rows.mean(0)).norm() <= COPY * rows.norm())


def _drawn(model: NBVAE) -> list[Drawn]:
    return [layer for layer in model.encoder.input_layer if isinstance(layer, Drawn)]


def _measure(found: list[float], module: nn.Module, inputs: tuple, output: Tensor) -> None:
    found.append(float(output.relu().square().mean().sqrt() / inputs[0].square().mean().sqrt()))
