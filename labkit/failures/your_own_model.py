"""Your own model: a training script that this lab has never seen goes NaN.

The script is a file outside of the package. It trains a small attention model on reviews, and one
review has no words left. All its scores are minus infinity, and the softmax of nothing is 0/0.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from types import ModuleType
from unittest.mock import patch

import torch
from torch import Tensor

from labkit.bench import Claim, Reading, choice, dial
from labkit.failures import _stranger
from labkit.failures._by_hand import attention
from labkit.failures._outside import Folder, kept
from labkit.failures._whole import blamed
from labkit.probes.report import Report
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict

Form = Callable[[Tensor, Tensor], Tensor]


def cleaned(scores: Tensor, mask: Tensor) -> Tensor:
    """Replace the NaN afterwards: the backward pass of the softmax has kept it."""
    hidden = torch.zeros_like(scores).masked_fill(mask == 0, -torch.inf)
    return torch.softmax(scores + hidden, dim=1).nan_to_num()


def very_low(scores: Tensor, mask: Tensor) -> Tensor:
    """The lowest finite number for infinity: a review without words now reads its padding."""
    lowest = torch.finfo(scores.dtype).min
    return torch.softmax(scores + torch.zeros_like(scores).masked_fill(mask == 0, lowest), dim=1)


def chosen_away(scores: Tensor, mask: Tensor) -> Tensor:
    """Where there is no word nothing is hidden from the softmax, and nothing counts after it."""
    empty = (mask == 0).all(1, keepdim=True)
    hidden = torch.zeros_like(scores).masked_fill((mask == 0) & ~empty, -torch.inf)
    return torch.softmax(scores + hidden, dim=1).masked_fill(empty, 0.0)


TITLE = "Your own model"
NICKNAME = "a file that the lab has never seen"
SYMPTOM = "My own training was fine for forty steps; now every number that it prints is NaN."
CLAIM = Claim(
    quote="每个batch后检测loss: if torch.isnan(loss): raise",
    translation="check the loss after every batch: if torch.isnan(loss): raise",
    verdict="incomplete guard",
    truth="It raises one step too late, when the optimizer has written NaN into all 4 parameters, "
    "and it names neither the batch nor the line.",
)
SOURCES = (
    "Vaswani et al. (2017), Attention Is All You Need, section 3.2.3: masking by minus infinity",
    "PyTorch documentation, Reproducibility: what must be equal for equal bits",
)
CARD = {
    "cause": "A row of scores that are all minus infinity: its softmax is 0/0.",
    "repair": "Choose the empty rows away before the softmax, and give them no weight after it.",
    "proof": "Replay the capsule of the bad step, then trace the same step with the repair.",
}
FORMS: dict[str, Form] = {
    "as it is": _stranger.attend,
    "nan_to_num": cleaned,
    "lowest number": very_low,
    "chosen away": chosen_away,
}
FORM_KNOB = "attend"
WATCHED = {  # what changes in the stranger's loop when it is watched
    "from torch import nn\n": "from torch import nn\n\nfrom labkit import watch\n",
    "    for step, batch in enumerate(reviews()):\n": "    watched = watch(model, optimizer)\n"
    "    for step, batch in watched.over(enumerate(reviews())):\n",
    "    bad = sum(": "    watched.close()\n    bad = sum(",
}
COUNTED = WATCHED | {  # a step that reads what nobody keeps: how often the loop has run
    "empty_at=41": "empty_at=None",
    "    optimizer = torch": "    count = []\n    optimizer = torch",
    "loss = loss_of(model, batch)\n": "count.append(step)\n"
    "        loss = loss_of(model, batch) * (torch.nan if len(count) == 7 else 1.0)\n",
}
LOWEST = WATCHED | {"scores).masked_fill(mask == 0, -torch.inf)": "scores) - 3e38 * (mask == 0)"}
TRUE = 1e-4  # of the value, relative to float64; rounding of one step stays near 1e-7
ROUGH = 2e-2  # the same in bfloat16, which has three digits
HINTS = {
    Verdict.NAN: "one review has no word, so all its scores are minus infinity, and its softmax is "
    "0/0. What comes after the softmax is too late: its backward pass uses its output. Give such "
    "a row finite scores, and take its weights away afterwards.",
    Verdict.DEAD: "a gradient is exactly zero. What cuts the graph between scores and weights, or "
    "gives every word the weight 0, leaves the model nothing to learn from.",
    Verdict.WRONG: "finite, but far from float64. A review without words must not read its "
    "padding: all its weights are 0, not one share each.",
}
BY_HAND = (
    (
        attention,
        "a row of ordinary scores comes out wrong. exp(100) is Inf in float32 and exp(-100) is "
        "next to nothing: let torch.softmax do it, which subtracts the largest score first.",
    ),
)


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    empty: float = dial(0, 0, 32, 1, "reviews of 32", "in which the cleaning left no word")
    dtype: str = choice("float32", ("bfloat16", "float32", "float64"), "of the model")
    attend: str = choice("as it is", FORMS, "how the scores of the words become weights")


CASES = {
    "healthy": Settings(),
    "broken": Settings(empty=1.0),
    "repaired": Settings(empty=1.0, attend="chosen away"),
    "wrong": Settings(empty=1.0, attend="lowest number"),
}


def folder() -> Folder:
    """A new folder with the stranger's ``train.py`` in it, and nothing else."""
    return Folder(train=inspect.getsource(_stranger))


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """One traced step of the stranger's model, after 40 healthy steps of its training.

    Args:
        settings: the knobs.
        repair: a function of scores and mask, each (review, word), to weights of that shape, in
            place of the chosen form.
    """
    own = settings.attend == "as it is"  # then it is the file's own function that runs
    form = repair or (None if own else FORMS[settings.attend])
    report = _step(settings, form)
    truth = _step(replace(settings, dtype="float64"), chosen_away).losses[0]
    value = report.losses[0]
    bound = ROUGH if settings.dtype == "bfloat16" else TRUE
    # What an empty review reads is a matter of meaning; the tracer cannot know it.
    if report.verdict == Verdict.HEALTHY and not abs(value - truth) <= bound * abs(truth):
        report = _wrong(report, f"{value:.4f} where no word shall count gives {truth:.4f}")
    return Reading(settings, report.verdict, report, value, truth)


def _step(settings: Settings, form: Form | None) -> Report:
    train = _train()
    words, liked = next(islice(train.reviews(), 40, None))
    words[: round(settings.empty)] = 0
    with patch.object(train, "attend", form or train.attend), torch.random.fork_rng(devices=[]):
        model = train.Reader().to(getattr(torch, settings.dtype))
        model.load_state_dict(_weights())
        batch = words, liked.to(model.head.weight.dtype)
        torch.manual_seed(0)  # of the dropout
        return trace(lambda: train.loss_of(model, batch), model=model)


def _train() -> ModuleType:
    """The stranger's file as a module, loaded from outside of the package."""
    return kept("train", inspect.getsource(_stranger))


@lru_cache(maxsize=1)
def _weights() -> dict[str, Tensor]:
    """What 40 steps of the stranger's training have made; they are all healthy."""
    train = _train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = train.Reader()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for batch in train.reviews(batches=40):
            optimizer.zero_grad()
            train.loss_of(model, batch).backward()
            optimizer.step()
    return model.state_dict()


def _wrong(report: Report, remark: str) -> Report:
    """The same report, with its softmax to blame for a value that is not meant."""
    op = next((op for op in report.ops if op.name == "_softmax"), report.ops[-1])
    return replace(report, verdict=Verdict.WRONG, culprit=blamed(op, remark))
