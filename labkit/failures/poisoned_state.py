"""Poisoned state: the bad step is undone, and something else remembers it.

A training run is more than its weights. The optimizer keeps averages of old gradients, BatchNorm
keeps averages of old batches, and a loss scaler keeps its scale. One bad step enters all of them.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isfinite

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from labkit.bench import Claim, Reading, choice, dial
from labkit.failures._bad_batch import evaluate, prepared, train
from labkit.failures._whole import blamed
from labkit.models.vae import NBVAE
from labkit.probes.report import Report
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict

Form = Callable[[nn.Module, Optimizer], Callable[[], None]]

TITLE = "Poisoned state"
NICKNAME = "what the weights forgot, the optimizer remembers"
SYMPTOM = "I restored the last good weights, and one good step later every weight is NaN again."
CLAIM = Claim(
    quote="定期检查参数: 是否有参数变为NaN · 检查最终模型参数: 所有参数都应是有限值",
    translation="check the parameters regularly for NaN; in the end all of them must be finite",
    verdict="incomplete guard",
    truth="All parameters can be finite while Adam's second moment is Inf and never lets them "
    "move again, or while BatchNorm's running mean is NaN and only eval() shows it.",
)
SOURCES = (
    "Kingma and Ba (2015), Adam: A Method for Stochastic Optimization, algorithm 1",
    "Ioffe and Szegedy (2015), Batch Normalization, algorithm 2: what inference uses",
    "Micikevicius et al. (2018), Mixed Precision Training, section 3.2: loss scaling",
)
CARD = {
    "cause": "Optimizer state or buffers keep the bad step after the parameters were restored.",
    "repair": "Restore parameters, buffers and optimizer state together, from copies.",
    "proof": "After the rescue the run has the bits of one in which nothing had happened.",
}


def nothing(model: nn.Module, optimizer: Optimizer) -> Callable[[], None]:
    """The skip loop: it goes on with the next batch."""
    return lambda: None


def aliased(model: nn.Module, optimizer: Optimizer) -> Callable[[], None]:
    """Without a copy: a state_dict holds the live tensors, so what is kept changes with them."""
    kept = model.state_dict(), optimizer.state_dict()
    return lambda: (model.load_state_dict(kept[0]), optimizer.load_state_dict(kept[1]))


def parameters(model: nn.Module, optimizer: Optimizer) -> Callable[[], None]:
    """The weights, and nothing else."""
    kept = {name: p.detach().clone() for name, p in model.named_parameters()}
    return lambda: model.load_state_dict(kept, strict=False)


def model_only(model: nn.Module, optimizer: Optimizer) -> Callable[[], None]:
    """As in the guide's checkpoint: weights and buffers, no optimizer."""
    kept = deepcopy(model.state_dict())
    return lambda: model.load_state_dict(kept)


def once(model: nn.Module, optimizer: Optimizer) -> Callable[[], None]:
    """Everything, and it works once: the optimizer goes on training in the tensors it loads."""
    kept = deepcopy((model.state_dict(), optimizer.state_dict()))
    return lambda: (model.load_state_dict(kept[0]), optimizer.load_state_dict(kept[1]))


def whole(model: nn.Module, optimizer: Optimizer) -> Callable[[], None]:
    """Everything, copied when it is kept and again when it is put back."""
    kept = deepcopy((model.state_dict(), optimizer.state_dict()))

    def restore() -> None:
        model.load_state_dict(kept[0])
        optimizer.load_state_dict(deepcopy(kept[1]))

    return restore


FORMS: dict[str, Form] = {
    "nothing": nothing,
    "aliased": aliased,
    "parameters": parameters,
    "model": model_only,
    "once": once,
    "whole": whole,
}
FORM_KNOB = "rescue"


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    power: float = dial(0.0, 0, 40, 1, "", "one count of the bad batch is 10 to this; 39: Inf")
    noticed: str = choice("after", ("before", "after"), "the bad step is noticed, and undone")
    times: float = dial(1, 1, 3, 1, "", "bad batches, each followed by a rescue")
    optimizer: str = choice("Adam", ("Adam", "momentum"), "what keeps averages of gradients")
    rescue: str = choice("whole", FORMS, "what is put back")


CASES = {
    "healthy": Settings(),
    "broken": Settings(power=40.0, rescue="parameters"),
    "frozen": Settings(power=10.0, rescue="model"),
    "eval": Settings(power=40.0, noticed="before", rescue="nothing"),
    "again": Settings(power=40.0, times=2, rescue="once"),
    "repaired": Settings(power=40.0),
}
HINTS = {
    Verdict.NAN: "a NaN has come back from where it was kept: the optimizer's averages, or the "
    "running statistics of BatchNorm. Both must be put back with the weights, from copies.",
    Verdict.INF: "the optimizer keeps an infinity in its averages. Put its state back as well.",
    Verdict.FROZEN: "the weights are good, and Adam divides by a giant that it remembers. Put "
    "back the optimizer's state as well.",
    Verdict.WRONG: "the run is not where it would be if nothing had happened.",
}
TWICE = (
    "the first rescue works, the second does not: what you kept was changed in between. "
    "optimizer.load_state_dict keeps the very tensors that it is given. Hand it a copy."
)
CHECKS = (
    (CASES["again"], Verdict.HEALTHY, TWICE),
    (Settings(power=40.0, noticed="before"), Verdict.HEALTHY, HINTS[Verdict.NAN]),
    (Settings(power=10.0), Verdict.HEALTHY, HINTS[Verdict.FROZEN]),
)
LEFT = 0.01  # of Adam's step: with less, a parameter stands still for thousands of steps
NOTHING = 1e-6  # of the largest memory: a bias before BatchNorm has a true gradient of 0
OFF = 1e-4  # of the loss, relative to a run in which nothing happened; float32 is off by 3e-6


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """A good step, bad batches that are undone, and a good step under trace; then the loss in eval.

    Args:
        settings: the knobs.
        repair: a function of the model and the optimizer. It is called when the state is good,
            and returns a function that puts the state back.
    """
    form = repair or FORMS[settings.rescue]
    model, optimizer = prepared(settings.optimizer)
    train(model, optimizer, 0)
    restore = form(model, optimizer)
    for bad in range(int(settings.times)):
        if bad:
            train(model, optimizer, 1)
        train(model, optimizer, 2, settings.power, settings.noticed == "after")
        restore()
    report = trace(lambda: train(model, optimizer, 3), model=model, optimizers=optimizer)
    value, (truth, clean) = evaluate(model), _truth(settings.optimizer)
    report = _judged(report, model, optimizer, value / truth, clean)
    return Reading(settings, report.verdict, report, value, truth)


def _judged(report: Report, model: NBVAE, optimizer: Optimizer, share: float, clean) -> Report:
    """The report, or one that tells what a trace of one training step cannot know.

    Such a step does not read the running statistics, and has no step before it to compare with.
    """
    if report.verdict in (Verdict.NAN, Verdict.INF):
        return report
    step = next(op for op in report.ops[::-1] if op.phase == "optimizer")
    if bad := [name for name, buffer in model.named_buffers() if not buffer.isfinite().all()]:
        norm = next(op for op in report.ops if "batch_norm" in op.name)
        remark = f"{', '.join(bad)} not finite: training does not read them, eval does"
        return _blamed(report, Verdict.NAN, norm, remark, {})
    left = _strides_left(memory(model, optimizer), clean)
    if still := {name: "not updated" for name, share in left.items() if share < LEFT}:
        remark = f"its memory of old gradients leaves {min(left.values()):.0e} of a step"
        return _blamed(report, Verdict.FROZEN, step, remark, still)
    if not isfinite(share):
        return _blamed(report, Verdict.NAN, step, "its momentum took the weights out of range", {})
    if abs(share - 1) > OFF:
        remark = f"the loss is {share:.4g} times that of a run in which nothing happened"
        return _blamed(report, Verdict.WRONG, step, remark, {})
    return replace(report, verdict=Verdict.HEALTHY, culprit=None, chain=())


def _blamed(report: Report, verdict: Verdict, op, remark: str, words: dict[str, str]) -> Report:
    fates = tuple(replace(f, word=words.get(f.name, f.word)) for f in report.parameters)
    culprit = blamed(op, remark, "step" if op.phase == "optimizer" else "")
    return replace(report, verdict=verdict, culprit=culprit, chain=(), parameters=fates)


def memory(model: NBVAE, optimizer: Optimizer) -> dict[str, Tensor]:
    """What Adam divides the step of every entry by; nothing for momentum."""
    named = ((name, optimizer.state[p].get("exp_avg_sq")) for name, p in model.named_parameters())
    return {name: v.double().sqrt() for name, v in named if v is not None}


def _strides_left(now: dict[str, Tensor], clean: dict[str, Tensor]) -> dict[str, float]:
    """By parameter, the median share of a step that is left where the clean run takes one."""
    sizes = {name: float(v.max()) for name, v in clean.items()}
    most = max(sizes.values(), default=0.0)
    named = [name for name, size in sizes.items() if size > NOTHING * most]
    return {n: float((clean[n] / now[n])[clean[n] > 0].median()) for n in named}


@lru_cache(maxsize=2)
def _truth(optimizer: str) -> tuple[float, dict[str, Tensor]]:
    """Loss and memory of a run in which nothing happened, in float64."""
    model, kept = prepared(optimizer, torch.float64)
    train(model, kept, 0)
    train(model, kept, 3)
    return evaluate(model), memory(model, kept)
