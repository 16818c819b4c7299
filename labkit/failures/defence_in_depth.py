"""Defence in depth: three layers against bad numbers, and what each of them does not stop.

The guide protects a model three times: its outputs are kept in range, the loss edits its inputs,
and a check of the loss ends a run that went wrong. The first layer also stops gradients, the second
also stops questions, and the third looks at one number only.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import nan

import torch
from torch import Generator, Tensor

from labkit.bench import Claim, Reading, choice, dial
from labkit.cells.data import Cells
from labkit.failures._batch import batch, shifted
from labkit.failures._whole import blamed
from labkit.models.guards import GUIDE, REPAIRED, Guards, unguarded
from labkit.models.vae import NBVAE, elbo_loss
from labkit.probes.guard_audit import GuardReport, audit_guards
from labkit.probes.report import Report
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict

Form = Callable[[Tensor, str], Tensor]
POINTS = ("counts", "logvar", "sample_logvar", "kl_logvar", "log_r")
ENTRIES = {"none": None, "-0.5": -0.5, "0.37": 0.37, "NaN": nan, "Inf": torch.inf}
CELL, GENE = 3, 5  # of the entry that is spoilt

TITLE = "Defence in depth"
NICKNAME = "three locks and an open window"
SYMPTOM = "Every guard is on, no alarm has rung, and the model learns from data that are not data."
CLAIM = Claim(
    quote="层次2: 损失函数输入验证 x = torch.clamp(x, min=0.0) · "
    "层次3: 运行时检测 isnan(loss) or isinf(loss)",
    translation="layer 2, the loss validates its inputs: x = clamp(x, min=0); layer 3, a check at "
    "run time: loss is NaN or Inf",
    verdict="incomplete guard",
    truth="A clamp edits and validates nothing: -0.5 is scored as 0, NaN passes. The clamps of "
    "the log-variance take its gradient away. And a finite loss can have a NaN as gradient.",
)
SOURCES = (
    "Saltzer and Schroeder (1975), The Protection of Information in Computer Systems: fail-safe "
    "defaults, complete mediation",
    "Shore (2004), Fail Fast, IEEE Software 21, 21",
    "Bengio, Leonard and Courville (2013), Estimating or Propagating Gradients Through "
    "Stochastic Neurons: the straight-through estimator",
)
CARD = {
    "cause": "A guard that edits: it hides a fault in the data, or stops the gradient of a value.",
    "repair": "Refuse bad data by name; cap a value and let its gradient pass; check gradients.",
    "proof": "The guard audit: nothing altered in a healthy run, no gradient killed in any.",
}


def off(value: Tensor, point: str) -> Tensor:
    """No guard at all."""
    return value


def guide(value: Tensor, point: str) -> Tensor:
    """The guide's guards, each at its point: clamps, and an eps."""
    return getattr(GUIDE, point)(value)


def cover(value: Tensor, point: str) -> Tensor:
    """What is often added to be safe: nothing that is not finite comes out."""
    return torch.nan_to_num(getattr(GUIDE, point)(value))


def repaired(value: Tensor, point: str) -> Tensor:
    """Counts are refused if they are none; the rest is capped, and its gradient passes."""
    return getattr(REPAIRED, point)(value)


FORMS: dict[str, Form] = {"off": off, "guide": guide, "cover": cover, "repaired": repaired}
FORM_KNOB = "guards"


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    shift: float = dial(0.0, -40, 140, 0.5, "nats", "added to the encoder's log-variance")
    entry: str = choice("none", ENTRIES, "one count of 64 cells x 765 genes is this")
    guards: str = choice("repaired", FORMS, "what stands at every protection point")


CASES = {
    "healthy": Settings(),
    "broken": Settings(shift=-15.0, guards="guide"),
    "edited": Settings(entry="-0.5", guards="guide"),
    "passed": Settings(entry="NaN", guards="guide"),
    "covered": Settings(entry="NaN", guards="cover"),
    "repaired": Settings(shift=-15.0),
}
ACCEPTED = (
    "a count that is none was accepted. A guard that edits it takes the question away. At the "
    "point 'counts' raise a ValueError that names the entry: labkit.cells.data.validate_counts."
)
FLAT = (
    "no gradient passes the log-variance, or next to none. A clamp is flat outside its range. "
    "Cap it once, at the point 'logvar', let the gradient pass, and leave the other two points."
)
HINTS = {
    Verdict.WRONG: ACCEPTED,
    Verdict.NAN: ACCEPTED,
    Verdict.DEAD: FLAT,
    Verdict.VANISHING: FLAT,
}


def refuses(reading: Reading) -> bool:
    """The data were refused, by an error that says why."""
    return reading.note.startswith("refused")


CHECKS = (
    *((Settings(entry=entry), refuses, ACCEPTED) for entry in ENTRIES if entry != "none"),
    (Settings(shift=90.0), Verdict.HEALTHY, FLAT),
)


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """One training step of the trained model on 64 real cells, under guards.

    Args:
        settings: the knobs.
        repair: a function of a tensor and the name of its point (counts, logvar, sample_logvar,
            kl_logvar, log_r) to the tensor that is used. It may raise a ValueError to refuse.
    """
    form, refused = repair or FORMS[settings.guards], []
    model, cells = prepared(settings.shift), spoilt(settings.entry)

    def step() -> Tensor | None:
        try:
            return loss(model, cells, guards_of(form))
        except (ValueError, FloatingPointError) as error:
            refused.append(str(error))

    report = trace(step, model=model)
    if refused:  # there is no loss, so nothing can be harmed
        report = replace(report, verdict=Verdict.HEALTHY, culprit=None, chain=(), parameters=())
        return Reading(settings, report.verdict, report, nan, nan, f"refused: {refused[0]}")
    truth = _truth(settings.shift, form)
    report = _judged(report, settings.entry)
    return Reading(settings, report.verdict, report, report.losses[0], truth)


def loss(model: NBVAE, cells: Cells, guards: Guards, form: str = "stable") -> Tensor:
    """Negative ELBO in nats per cell, always with the same noise."""
    x, tissue, library = cells.counts, cells.tissue, cells.library
    noise = Generator().manual_seed(0)
    return elbo_loss(x, tissue, model, library, guards, form, generator=noise)[0]


def guards_of(form: Form) -> Guards:
    """One function at every protection point."""
    return Guards(**{name: lambda value, name=name: form(value, name) for name in POINTS})


def audit(shift: float = 0.0, entry: str = "none", guards: Guards = GUIDE) -> list[GuardReport]:
    """What each guard that is set does in one run; the guide's guards act on the guide's loss."""
    model, cells = prepared(shift), spoilt(entry)
    form = "guide" if guards is GUIDE else "stable"
    reports = audit_guards(guards, lambda used: loss(model, cells, used, form))
    return [report for report in reports if report.calls and report.guard in _set_in(guards)]


def prepared(shift: float, dtype: torch.dtype = torch.float32) -> NBVAE:
    """A fresh copy of the trained model, its log-variance shifted."""
    return shifted("encoder.fc_logvar.bias", shift, dtype)


def spoilt(entry: str, dtype: torch.dtype = torch.float32) -> Cells:
    """64 real cells, one count replaced."""
    cells, count = batch(dtype), ENTRIES[entry]
    if count is None:
        return cells
    counts = cells.counts.clone()
    counts[CELL, GENE] = count
    return replace(cells, counts=counts)


def _judged(report: Report, entry: str) -> Report:
    """The report, or *wrong* where a count that is none was used: only who spoilt it can know."""
    if entry == "none" or report.verdict != Verdict.HEALTHY:
        return report
    op = next(op for op in report.ops if "likelihood" in op.name)
    remark = f"a count of {entry} was used as if it were one"
    return replace(report, verdict=Verdict.WRONG, culprit=blamed(op, remark, op.name), chain=())


def _set_in(guards: Guards) -> set[str]:
    return {name for name, guard in vars(guards).items() if guard is not unguarded}


@lru_cache(maxsize=256)
def _truth(shift: float, form: Form) -> float:
    """The loss of the sound cells in float64, under the same guards."""
    with torch.no_grad():
        model = prepared(shift, torch.float64)
        return float(loss(model, spoilt("none", torch.float64), guards_of(form)))
