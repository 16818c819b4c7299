"""Tests that catch: a broken model passes every test of extreme inputs, and is shipped.

The guide feeds zeros, a million and a millionth, and asks whether the loss is NaN. An infinite
loss is not NaN, a NaN gradient is not in the loss, and a dead parameter is in neither.
"""

import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Generator, Tensor

from labkit.bench import Claim, Reading, choice, dial
from labkit.cells.data import Cells, load_pbmc
from labkit.failures._by_hand import question
from labkit.failures.distance_at_zero import energy, root
from labkit.failures.exploding_logvar import CAP_LOG_MU, CAP_LOG_R
from labkit.failures.exploding_logvar import FORMS as GUARDS
from labkit.models.likelihood import kl_standard_normal_guide, nb_log_likelihood_from_logs
from labkit.models.vae import NBVAE, sample_z
from labkit.probes.report import Culprit, Report
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict
from labkit.training.train import trained_vae

Gradients = dict[str, Tensor]
Form = Callable[[Gradients, Tensor], bool]


def not_nan(gradients: Gradients, losses: Tensor) -> bool:
    """The guide's: no loss is NaN."""
    return not bool(losses.isnan().any())


def finite_loss(gradients: Gradients, losses: Tensor) -> bool:
    """Every loss is finite."""
    return bool(losses.isfinite().all())


def finite_gradients(gradients: Gradients, losses: Tensor) -> bool:
    """Every loss and every gradient is finite."""
    found = (losses, *gradients.values())
    return all(bool(tensor.isfinite().all()) for tensor in found)


def alive(gradients: Gradients, losses: Tensor) -> bool:
    """All is finite, and each parameter learns from real cells: they are input 0."""
    finite = finite_gradients(gradients, losses)
    return finite and all(bool(g[0].any()) for g in gradients.values())


TITLE = "Tests that catch"
NICKNAME = "green, and broken"
SYMPTOM = "Every test of extreme inputs is green, and the model breaks on the first day."
CLAIM = Claim(
    quote="✅ 所有极端输入测试通过",
    translation="all extreme input tests passed (the loss is NaN for none of them)",
    verdict="false",
    truth="Three broken models pass: one whose loss is Inf, one whose gradients are NaN, and one "
    "with a head that gets no gradient. The inputs are not what breaks them.",
)
SOURCES = (
    "Breck et al. (2017), The ML Test Score, IEEE Big Data: test the gradient steps, not only "
    "the outputs",
    "IEEE 754-2019: infinity is not NaN",
)
CARD = {
    "cause": "The test asks one question of one number: is the loss NaN?",
    "repair": "Ask of every loss and every gradient whether it is finite, and of every parameter "
    "whether it learns. Set the heads to extremes, not only the inputs.",
    "proof": "Break the model on purpose: the test is red. Mend it: the test is green.",
}
WEAK = (
    "the test was green, and this model was shipped. Ask of the losses whether they are finite "
    "(Inf is not NaN), ask the same of every gradient, and ask of every parameter whether any of "
    "its gradients is not 0."
)
USUAL = (
    "a parameter that is dead on real cells may wake up for an input of a million, or when a head "
    "is set far out. Ask for life where the model works: input 0 holds real cells."
)
HINTS = {
    **dict.fromkeys((Verdict.INF, Verdict.NAN, Verdict.DEAD), WEAK),
    Verdict.WRONG: "a good model was refused. A test that is always red is as useless as one that "
    "is always green.",
}
BY_HAND = ((question, WEAK),)
FORMS: dict[str, Form] = {
    "not NaN": not_nan,
    "finite loss": finite_loss,
    "finite gradients": finite_gradients,
    "alive": alive,
}
FORM_KNOB = "test"


@dataclass(frozen=True)
class Fault:
    """What a change did to the model."""

    guard: str  # of the log-variance
    shift: float = 0.0  # of the log-variance, when the model is tested
    later: float = 0.0  # and on its first day
    itself: bool = False  # a term compares each cell with itself


FAULTS = {
    "none": Fault("straight-through"),
    "KL overflows": Fault("none", 90.0, 90.0),
    "distance at zero": Fault("straight-through", itself=True),
    "dead head": Fault("clamp", 40.0, 40.0),
    "thin ice": Fault("none", later=90.0),
}
EXTREMES = ("inputs", "inputs and heads")
HEADS = ("encoder.fc_logvar.bias", "decoder.fc_mu.bias", "decoder.fc_r.bias")
FAR = 100.0  # what a head's bias is set to: far outside of what training makes


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    fault: str = choice("none", FAULTS, "what a change did to the model")
    large: float = dial(6, 0, 12, 1, "log10", "the largest count that is fed in")
    extremes: str = choice("inputs", EXTREMES, "what is set to extremes, beside real cells")
    test: str = choice("not NaN", FORMS, "what is asserted of losses and gradients")


CASES = {
    "healthy": Settings(),
    "broken": Settings(fault="KL overflows"),
    "repaired": Settings(fault="KL overflows", test="alive"),
    "NaN gradient": Settings(fault="distance at zero"),
    "dead head": Settings(fault="dead head"),
    "thin ice": Settings(fault="thin ice", test="alive"),
}
CHECKS = (
    (CASES["NaN gradient"], Verdict.HEALTHY, WEAK),
    (CASES["dead head"], Verdict.HEALTHY, USUAL),
    (Settings(fault="thin ice", extremes="inputs and heads"), Verdict.HEALTHY, WEAK),
    (Settings(extremes="inputs and heads"), Verdict.HEALTHY, HINTS[Verdict.WRONG]),
)


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """A change, a test, and one traced step of the model that is shipped after it.

    Green: the changed model is shipped. Red: the last good one stays. The reference is the loss
    of the good model in float64.

    Args:
        settings: the knobs.
        repair: a function of the gradients, by name, each (input, ...), and the losses, (input,).
            Input 0 holds real cells. It returns True where the test is green.
    """
    test = repair or FORMS[settings.test]
    green = test(*measured(settings.fault, settings.large, settings.extremes))
    fault = FAULTS[settings.fault if green else "none"]
    model, cells = trained_vae(), _cells()
    report = trace(lambda: loss(model, cells, fault, fault.later), model=model)
    if settings.fault == "none" and not green:
        report = _refused(report, test)
    return Reading(settings, report.verdict, report, report.losses[0], _truth())


def measured(fault: str, large: float = 6.0, extremes: str = "inputs") -> tuple[Gradients, Tensor]:
    """What a test may look at: gradients by name, each (input, ...), and losses, (input,)."""
    model, how = trained_vae(), FAULTS[fault]
    named = dict(model.named_parameters())
    found = []
    for cells in _inputs(model, 10.0**large, extremes):
        value = loss(model, cells, how, how.shift)
        found.append((value.detach(), torch.autograd.grad(value, list(named.values()))))
    losses, gradients = zip(*found, strict=True)
    stacked = map(torch.stack, zip(*gradients, strict=True))
    return dict(zip(named, stacked, strict=True)), torch.stack(losses)


def _inputs(model: NBVAE, large: float, extremes: str) -> Iterator[Cells]:
    """Real cells, the guide's three inputs, and real cells again while a head is set far out."""
    cells = _cells()[:10]
    yield cells
    library = model.decoder.reference_library.expand(len(cells))
    for count in (0.0, large, 1e-6):
        yield replace(cells, counts=torch.full_like(cells.counts, count), library=library)
    for name in HEADS if extremes != "inputs" else ():
        head = model.get_parameter(name)
        before = head.detach().clone()
        for far in (-FAR, FAR):
            with torch.no_grad():
                head.fill_(far)
            yield cells
        with torch.no_grad():
            head.copy_(before)


def loss(model: NBVAE, cells: Cells, fault: Fault, shift: float) -> Tensor:
    """Negative ELBO in nats per cell, spoilt as the fault says."""
    mu_z, logvar_z = model.encoder(cells.counts, cells.tissue)
    logvar_z = GUARDS[fault.guard](logvar_z + shift)
    z = sample_z(mu_z, logvar_z, Generator().manual_seed(0))
    log_mu, log_r = model.decoder(z, cells.tissue, cells.library, as_logs=True)
    log_p = nb_log_likelihood_from_logs(cells.counts, CAP_LOG_MU(log_mu), CAP_LOG_R(log_r))
    value = kl_standard_normal_guide(mu_z, logvar_z).mean() - log_p.sum(-1).mean()
    return value + energy(mu_z, mu_z, root) if fault.itself else value


def lights(extremes: str) -> dict[str, dict[str, str]]:
    """Each fault, tested in each way: green or red."""
    seen = {fault: measured(fault, extremes=extremes) for fault in FAULTS}
    return {
        fault: {name: "green" if test(*found) else "red" for name, test in FORMS.items()}
        for fault, found in seen.items()
    }


def _refused(report: Report, test: Form) -> Report:
    """The report of the good model, with the test to blame that refused a good change."""
    lines, number = inspect.getsourcelines(test)
    path = inspect.getsourcefile(test)
    name, why = os.path.basename(path), "red, and the model is good"
    place = (name, number, lines[0].strip(), "", test.__name__, 0)
    culprit = Culprit("input", "test", *place, remark=why)
    files = (*report.files, (name, path))
    return replace(report, verdict=Verdict.WRONG, culprit=culprit, files=files)


@cache
def _truth() -> float:
    """The loss of the good model, in float64."""
    cells = _cells()
    with torch.no_grad():
        return float(loss(trained_vae().double(), cells.to(torch.float64), FAULTS["none"], 0.0))


@cache
def _cells() -> Cells:
    return load_pbmc().train[:32]
