"""Clip or detect: a bad gradient is shared out to everybody, or takes everybody's step away.

Between ``backward`` and ``step`` stands one line that divides every gradient by the length of all.
If that length is NaN, every gradient becomes NaN. If its square does not fit the dtype, it is Inf,
and every gradient becomes exactly zero, although each of them was finite.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import isfinite

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import clip_grad_norm_

from labkit.bench import Claim, Reading, choice, dial
from labkit.failures._batch import batch, shifted
from labkit.failures._by_hand import told_norm
from labkit.failures._stepped import judged, taken_steps
from labkit.models.guards import REPAIRED, Guard, unguarded
from labkit.models.vae import NBVAE, elbo_loss
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict

Parameters = list[nn.Parameter]
Form = Callable[[Parameters, float, float], float]
MAX_NORM = 100.0
LR = 1e-3
# The guide's first protection point, so that the decoder is well; the KL sees what was shifted.
GUARDS = replace(
    REPAIRED, logvar=unguarded, sample_logvar=Guard("sample_logvar", "clamp", -10.0, 10.0)
)

TITLE = "Clip or detect"
NICKNAME = "one for all, and none for anybody"
SYMPTOM = "Every gradient was finite, the optimizer stepped, and no weight has moved."
CLAIM = Claim(
    quote="❌ 错误: 裁剪可能掩盖NaN · ✅ 正确: 先检测再裁剪",
    translation="wrong: clipping may mask a NaN; right: detect first, then clip",
    verdict="false",
    truth="Clipping masks no NaN, it gives one to every parameter. What it hides is a finite "
    "gradient above 1.8e19: the norm is Inf, and every gradient becomes 0. And the guide's code "
    "clips first and looks afterwards, when nothing is left to look at.",
)
SOURCES = (
    "Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural "
    "networks, section 3.2: clipping by the norm",
    "Brock, De, Smith and Simonyan (2021), High-Performance Large-Scale Image Recognition "
    "Without Normalization, section 4: a bound for each unit",
    "PyTorch documentation, Automatic Mixed Precision examples: unscale before you clip",
)
CARD = {
    "cause": "The common norm is NaN or Inf, and every gradient is multiplied by its inverse.",
    "repair": "Unscale, take the norms in float64, refuse what is not finite, then clip.",
    "proof": "Every parameter moves by a bounded step, or the step is refused and nobody moves.",
}


def clip(parameters: Parameters, max_norm: float, scale: float) -> float:
    """The habit: clip whatever is there, and look at nothing."""
    clip_grad_norm_(parameters, max_norm)
    unscale(parameters, scale)
    return max_norm


def guide(parameters: Parameters, max_norm: float, scale: float) -> float:
    """The guide's "detect first": it clips, and looks at the norm afterwards."""
    total_norm = clip_grad_norm_(parameters, max_norm)
    if torch.isnan(total_norm) or torch.isinf(total_norm):
        raise RuntimeError(f"gradient anomaly: {total_norm}")
    unscale(parameters, scale)
    return float(total_norm)


def strict(parameters: Parameters, max_norm: float, scale: float) -> float:
    """torch's own way: it raises before it clips. The norm is still taken in float32."""
    unscale(parameters, scale)
    return float(clip_grad_norm_(parameters, max_norm, error_if_nonfinite=True))


def wide(parameters: Parameters, max_norm: float, scale: float) -> float:
    """One norm in float64 for all, as in the library's safe_step."""
    unscale(parameters, scale)
    norm = torch.stack([p.grad.double().norm() for p in parameters]).norm().item()
    for p in parameters if max_norm < norm < torch.inf else ():
        p.grad.mul_(max_norm / norm)
    return norm


def each(parameters: Parameters, max_norm: float, scale: float) -> float:
    """A norm in float64 for each parameter, so that a large one takes no step from the others."""
    unscale(parameters, scale)
    norms = [p.grad.double().norm().item() for p in parameters]
    if all(map(isfinite, norms)):
        for p, norm in zip(parameters, norms, strict=True):
            p.grad.mul_(min(1.0, max_norm / max(norm, max_norm)))
    return sum(norms)


def unscale(parameters: Parameters, scale: float) -> None:
    """Take the loss scale out of the gradients."""
    for p in parameters if scale != 1 else ():
        p.grad.div_(scale)


FORMS: dict[str, Form] = {form.__name__: form for form in (clip, guide, strict, wide, each)}
FORM_KNOB = "between"


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    shift: float = dial(0.0, 0, 100, 0.5, "nats", "added to the log-variance: gradients e^shift")
    scale: float = dial(0.0, 0, 24, 1, "", "the loss is multiplied by 2 to this power")
    between: str = choice("each", FORMS, "what stands between backward and step")


CASES = {
    "healthy": Settings(),
    "broken": Settings(shift=50.0, between="clip"),
    "poisoned": Settings(shift=95.0, between="clip"),
    "starved": Settings(shift=50.0, between="wide"),
    "scaled": Settings(scale=16.0, between="clip"),
    "repaired": Settings(shift=50.0),
}
HINTS = {
    Verdict.DEAD: "every gradient was finite, and their common norm is not: its square overflows "
    "float32 above 1.8e19. Square in float64.",
    Verdict.FROZEN: "one gradient is so large that the bound leaves nothing for the others, or "
    "the step was refused although every gradient is finite. Give each parameter its own norm.",
    Verdict.WRONG: "the step is not as long as it must be. Was the loss scale still in the "
    "gradients when they were measured? Unscale first.",
    Verdict.EXPLODING: "a step is longer than the bound. Scale each gradient down to max_norm.",
}
STOPPED = (  # a hint for a form that raises
    "every gradient is finite here, and a step is due. Square in float64; to refuse a step, return "
    "a norm that is not finite."
)


def refuses(reading: Reading) -> bool:
    """No step was taken."""
    return reading.value == 0.0


CHECKS = (
    (
        Settings(shift=95.0),
        refuses,
        "a gradient was not finite, and a step was taken. Return the norm that you found: if it "
        "is not finite, no step is taken.",
    ),
    (Settings(scale=16.0), Verdict.HEALTHY, HINTS[Verdict.WRONG]),
)

BY_HAND = (
    (
        told_norm,
        "the step is right, the number is not: behind a clip every norm is at most the bound, and "
        "no log of it shows the night on which it was 1e21. Return what you found before you clip.",
    ),
)


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """One training step on 64 real cells: backward, a form, and SGD unless the norm is not finite.

    Args:
        settings: the knobs.
        repair: a function of the parameters, the bound and the loss scale. It edits the
            gradients and returns their norm. If that is not finite, or it raises a
            RuntimeError, no step is taken.
    """
    form, scale = repair or FORMS[settings.between], 2.0**settings.scale
    model, taken = _prepared(settings.shift), []
    before = [p.detach().clone() for p in model.parameters()]
    bad = _bad_arrivals(settings.shift, scale)  # before the trace: it loads the cells
    report = trace(lambda: taken.append(step(form, model, scale=scale)), model=model)
    fates = taken_steps(model, before)
    value, reference = length(model) if taken[0] else 0.0, _truth(settings.shift, form)
    report = judged(report, fates, bad, value / (reference or torch.inf), MAX_NORM)
    spoilt = f"{sum(fate.word == 'nan' for fate in fates)} parameters"
    note = f"not finite: {bad} gradients, {spoilt}" if bad else ""
    return Reading(settings, report.verdict, report, value, reference, note)


def step(form: Form, model: NBVAE, seed: int = 0, scale: float = 1.0) -> bool:
    """One training step; was it taken?"""
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    optimizer.zero_grad()
    (loss(model, seed) * scale).backward()
    try:
        norm = form(list(model.parameters()), MAX_NORM, scale)
    except RuntimeError:
        norm = torch.inf
    taken = norm is None or isfinite(norm)  # a form that returns nothing has not looked
    if taken:
        optimizer.step()
    return taken


def loss(model: NBVAE, seed: int = 0) -> Tensor:
    """Negative ELBO in nats per cell; the sampler is guarded, the KL is not."""
    cells = batch(model.encoder.fc_mu.weight.dtype)
    noise = Generator().manual_seed(seed)
    x, tissue, library = cells.counts, cells.tissue, cells.library
    return elbo_loss(x, tissue, model, library, GUARDS, generator=noise)[0]


def length(model: NBVAE) -> float:
    """Of all gradients together, in float64."""
    return float(torch.stack([p.grad.double().norm() for p in model.parameters()]).norm())


def courses(shift: float = 60.0, steps: int = 40) -> dict[str, list[float]]:
    """Train from a shifted log-variance, by form; its mean after every step."""
    return {name: _course(FORMS[name], shift, steps) for name in ("strict", "wide", "each")}


def _course(form: Form, shift: float, steps: int) -> list[float]:
    model, cells, path = _prepared(shift), batch(), []
    for seed in range(steps):
        step(form, model, seed)
        with torch.no_grad():
            path.append(float(model.encoder(cells.counts, cells.tissue)[1].mean()))
    return path


@lru_cache(maxsize=256)
def _truth(shift: float, form: Form) -> float:
    """Length of the gradient that the optimizer should get: the form in float64, nothing scaled."""
    model = _prepared(shift, torch.float64)
    step(form, model)
    return length(model)


@lru_cache(maxsize=512)
def _bad_arrivals(shift: float, scale: float) -> int:
    """How many gradients arrive that are not finite, before anything is done to them."""
    model = _prepared(shift)
    (loss(model) * scale).backward()
    return sum(not p.grad.isfinite().all() for p in model.parameters())


_prepared = partial(shifted, "encoder.fc_logvar.bias")
