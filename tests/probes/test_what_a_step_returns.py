"""Which of the things that a step returns is its loss, and when that cannot be told."""

import math
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit import trace

IGNORED = -1  # a target that does not count


class Talker(nn.Module):
    """Returns logits and loss, as many language models do; without a target the loss is NaN."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(10, 8), nn.Linear(8, 10)

    def forward(self, words, targets):
        logits = self.head(self.table(words))
        return logits, F.cross_entropy(logits.view(-1, 10), targets.view(-1), ignore_index=IGNORED)


@pytest.fixture
def talk():
    torch.manual_seed(0)
    model, words = Talker(), torch.randint(0, 10, (2, 5))
    return model, lambda bad: model(words, torch.full_like(words, IGNORED) if bad else words)


Both = namedtuple("Both", "logits train_loss")
FORMS = {
    "a tuple with the logits first": lambda logits, loss: (logits, loss),
    "a list with a number that has no graph": lambda logits, loss: [loss.detach(), loss],
    "the key loss": lambda logits, loss: {"aux": logits.mean(), "loss": loss},
    "the key train_loss": lambda logits, loss: {"aux": logits.mean(), "train_loss": loss},
    "the key total": lambda logits, loss: {"total": loss, "logits": logits, "lr": 0.1},
    "a dict in a tuple": lambda logits, loss: (logits, {"nll": loss}),
    "a named tuple": Both,
    "an object": lambda logits, loss: SimpleNamespace(logits=logits, total_loss=loss),
    "a sum and its terms": lambda logits, loss: (loss, size := logits.mean(), loss + size),
    "one entry": lambda logits, loss: loss.reshape(1, 1),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_loss_is_found_and_its_nan_too(form, talk):
    model, run = talk
    report = trace(lambda: form(*run(bad=True)), model)
    assert report.verdict == "nan"
    assert report.culprit.op == "nll_loss_forward"
    assert trace(lambda: form(*run(bad=False)), model).verdict == "healthy"


AMBIGUOUS = {
    "a dict of two": lambda logits, loss: {"first": loss, "second": logits.mean()},
    "a list of two": lambda logits, loss: [loss, logits.mean()],
    "no number": lambda logits, loss: {"logits": logits},
    "a tensor of many": lambda logits, loss: logits,
    "a loss of many": lambda logits, loss: {"loss": logits},
}


@pytest.mark.parametrize("form", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_is_no_loss_is_not_added_up(form, talk):
    model, run = talk
    with pytest.raises(ValueError, match=r"step: expected a loss, one number; got a .*Return the"):
        trace(lambda: form(*run(bad=False)), model)
    assert model.head.weight.grad is None


def test_the_error_names_what_came(talk):
    model, run = talk
    with pytest.raises(ValueError, match="a dict with the keys first, second with 2 numbers"):
        trace(lambda: AMBIGUOUS["a dict of two"](*run(bad=False)), model)
    with pytest.raises(ValueError, match=r"a tensor of shape \(2, 5, 10\).*mean\(\)"):
        trace(lambda: run(bad=False)[0], model)


def test_a_term_that_is_nan_beside_a_finite_loss_is_told(talk):
    model, run = talk

    def step():
        logits, loss = run(bad=False)
        return {"loss": loss, "extra": (logits - logits).mean().log()}

    report = trace(step, model)
    assert (report.verdict, report.culprit.op) == ("inf", "log")


def test_a_step_with_its_own_backward_returns_what_it_likes(talk):
    model, run = talk
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step():
        optimizer.zero_grad()
        logits, loss = run(bad=False)
        loss.backward()
        optimizer.step()
        return {"logits": logits, "auroc": math.nan, "first": loss, "second": logits.mean()}

    assert trace(step, model, optimizer, 2).verdict == "healthy"


def test_a_generator_is_not_run_in_silence(talk):
    model, run = talk

    def step():
        yield run(bad=True)[1]

    with pytest.raises(TypeError, match="it made a generator, and nothing has run yet"):
        trace(step, model)

    async def later():
        return run(bad=True)[1]

    with pytest.raises(TypeError, match="it made a coroutine"):
        trace(later, model)
