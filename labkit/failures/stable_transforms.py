"""Stable transforms: a rewriting that is stable, and no longer says the same.

The KL of a VAE holds a difference of exponentials, exp(logvar) - exp(0). Written down as it stands,
it overflows above and loses its digits near zero. The guide's rewriting does neither. It computes
another number, whose slope has the wrong sign.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Generator, Tensor

from labkit.bench import Claim, Reading, choice, dial
from labkit.failures._batch import batch, shifted
from labkit.failures._by_hand import difference_of_exponentials, difference_of_neighbours
from labkit.failures._whole import blamed
from labkit.models.guards import Guard
from labkit.models.likelihood import nb_log_likelihood_from_logs
from labkit.models.vae import NBVAE, sample_z
from labkit.probes.report import Op, Report
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict
from labkit.training.safe_step import safe_step

Form = Callable[[Tensor, Tensor], Tensor]
CAP_SAMPLER = Guard("sample_logvar", "clamp", -10.0, 10.0)
CAP_LOG_R = Guard("log_r", "straight_through", -8.0, 12.0)

TITLE = "Stable transforms"
NICKNAME = "a stable way to another number"
SYMPTOM = "Since the formula was made stable, the KL is negative and the log-variance runs away."
CLAIM = Claim(
    quote="✅ 稳定: log-sum-exp技巧 diff = torch.exp(a - max_val) - torch.exp(b - max_val)",
    translation="stable: the log-sum-exp trick, diff = exp(a - max) - exp(b - max)",
    verdict="false",
    truth="The maximum is never put back, so the value is the true difference divided by "
    "exp(max): 0.86 in place of 17.37 at (3, 1). Above zero its slope has another size, and in "
    "the KL another sign.",
)
SOURCES = (
    "Higham (2002), Accuracy and Stability of Numerical Algorithms, section 1.14: expm1 and log1p",
    "Blanchard, Higham and Higham (2021), Accurately computing the log-sum-exp and softmax "
    "functions, IMA J. Numer. Anal. 41, 2311",
    "Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders, eq. 8: a log of "
    "a mean of exponentials",
)
CARD = {
    "cause": "A rewriting that drops a factor, or an eps that is larger than its argument.",
    "repair": "exp(b) * expm1(a - b); log a - log b; logsumexp, log1p, logsigmoid.",
    "proof": "Value and gradient agree with float64 where the numbers are small, large and equal.",
}


def plain(a: Tensor, b: Tensor) -> Tensor:
    """exp(a) - exp(b), as it stands in the formula."""
    return a.exp() - b.exp()


def guide(a: Tensor, b: Tensor) -> Tensor:
    """The guide's: the maximum is taken out and not put back."""
    max_val = torch.max(a, b)
    return torch.exp(a - max_val) - torch.exp(b - max_val)


def put_back(a: Tensor, b: Tensor) -> Tensor:
    """The same with its factor: the right number, and near a = b no digits of it."""
    max_val = torch.max(a, b).detach()
    return max_val.exp() * (torch.exp(a - max_val) - torch.exp(b - max_val))


def difference(a: Tensor, b: Tensor) -> Tensor:
    """What cancels is subtracted before exp: exp(b) (exp(a - b) - 1)."""
    return b.exp() * (a - b).expm1()


FORMS: dict[str, Form] = {
    "plain": plain,
    "guide": guide,
    "put back": put_back,
    "expm1": difference,
}
FORM_KNOB = "form"


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    shift: float = dial(0.0, -40, 100, 0.5, "nats", "added to the encoder's log-variance")
    collapse: float = dial(0.0, 0, 6, 0.5, "", "mean and log-variance are 10 to this times smaller")
    form: str = choice("expm1", FORMS, "of exp(logvar) - exp(0) in the KL")


CASES = {
    "healthy": Settings(),
    "broken": Settings(shift=3.0, form="guide"),
    "cancelled": Settings(collapse=4.0, form="plain"),
    "overflow": Settings(shift=95.0, form="plain"),
    "repaired": Settings(shift=3.0),
}
CANCELS = (
    "near a = b two numbers near 1 are subtracted, and their digits are gone before the minus "
    "sign. Subtract first: exp(a) - exp(b) = exp(b) * (exp(a - b) - 1), and expm1 is exp(x) - 1."
)
PUT_BACK = (
    "finite, and another number. Put (3, 1) in by hand: exp(3) - exp(1) is 17.37, and its slope "
    "in a is exp(3). A factor that is taken out must be put back."
)
HINTS = {Verdict.WRONG: PUT_BACK}
CHECKS = ((Settings(collapse=4.0), Verdict.HEALTHY, CANCELS),)
BY_HAND = ((difference_of_exponentials, PUT_BACK), (difference_of_neighbours, CANCELS))
OFF = 0.01  # of the KL, or of the length of its slope, relative to float64


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """One training step of the trained model on 64 real cells; the value is its KL.

    Args:
        settings: the knobs.
        repair: a function of two tensors a and b to exp(a) - exp(b). Here a is the
            log-variance, shape (cell, latent), and b is zero.
    """
    form, model = repair or FORMS[settings.form], prepared(settings.shift)
    batch()  # loaded here, so that a trace holds no loading
    report = trace(lambda: sum(parts(model, form, settings.collapse)), model=model)
    value, slope = _kl_and_slope(settings, form, torch.float32)
    truth, true_slope = _kl_and_slope(settings, difference, torch.float64)
    bent = float((slope - true_slope).norm() / true_slope.norm())
    if report.verdict not in (Verdict.NAN, Verdict.INF):
        report = _judged(report, form, max(abs(value / truth - 1), bent), value, truth)
    return Reading(settings, report.verdict, report, value, truth)


def parts(model: NBVAE, form: Form, collapse: float = 0.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Reconstruction and KL, in nats per cell; the sampler's log-variance is guarded."""
    cells, noise = batch(), Generator().manual_seed(seed)
    mu, logvar = (t / 10.0**collapse for t in model.encoder(cells.counts, cells.tissue))
    z = sample_z(mu, CAP_SAMPLER(logvar), noise)
    log_mu, log_r = model.decoder(z, cells.tissue, cells.library, as_logs=True)
    log_p = nb_log_likelihood_from_logs(cells.counts, log_mu, CAP_LOG_R(log_r))
    return -log_p.sum(-1).mean(), kl(mu, logvar, form)


def kl(mu: Tensor, logvar: Tensor, form: Form) -> Tensor:
    """Of N(mu, exp(logvar)) from N(0, 1), mean over cells; exp(logvar) - exp(0) by a form."""
    grown = form(logvar, torch.zeros_like(logvar))
    return 0.5 * (mu.square() + (grown - logvar)).sum(-1).mean()


def courses(shift: float = 25.0, steps: int = 60) -> dict[str, list[float]]:
    """Train with two forms from a shifted log-variance; its mean after every step."""
    return {name: _course(FORMS[name], shift, steps) for name in ("guide", "expm1")}


def _course(form: Form, shift: float, steps: int) -> list[float]:
    model, cells, path = prepared(shift), batch(), []
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for seed in range(steps):
        loss = sum(parts(model, form, seed=seed))
        safe_step(loss, optimizer, model.parameters(), max_norm=10)
        with torch.no_grad():
            path.append(float(model.encoder(cells.counts, cells.tissue)[1].mean()))
    return path


def prepared(shift: float) -> NBVAE:
    """A fresh copy of the trained model, its log-variance shifted."""
    return shifted("encoder.fc_logvar.bias", shift)


def _kl_and_slope(settings: Settings, form: Form, dtype: torch.dtype) -> tuple[float, Tensor]:
    """The KL and its slope in logvar, of the posterior that the model has in float32."""
    mu, logvar = (t / 10.0**settings.collapse for t in _posterior(settings.shift))
    logvar = logvar.to(dtype).requires_grad_()
    value = kl(mu.to(dtype), logvar, form)
    (slope,) = torch.autograd.grad(value, logvar, allow_unused=True, materialize_grads=True)
    return value.item(), slope.double()


@lru_cache(maxsize=256)
def _posterior(shift: float) -> tuple[Tensor, Tensor]:
    model = prepared(shift)
    with torch.no_grad():
        return model.encoder(batch().counts, batch().tissue)


def _judged(report: Report, form: Form, off: float, value: float, truth: float) -> Report:
    """The report, or one that says *wrong*: a tracer does not know which number was meant."""
    if off <= OFF:
        return report
    op = _last_in(report, form)
    sizes = f"{value:.3g}, and in truth {truth:.3g}"
    remark = f"the KL is {sizes}" if abs(value / truth - 1) > OFF else "its slope is another"
    return replace(report, verdict=Verdict.WRONG, culprit=blamed(op, remark), chain=())


def _last_in(report: Report, form: Form) -> Op:
    """The last operation that the form's own lines ran."""
    code = form.__code__
    lines = range(code.co_firstlineno, max((n for *_, n in code.co_lines() if n), default=0) + 1)
    file = Path(code.co_filename).name
    ops = [op for op in report.ops if op.phase == "forward" and op.file]
    return next((op for op in ops[::-1] if op.file == file and op.line in lines), ops[-1])
