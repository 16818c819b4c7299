"""A learning rate that is too large is to blame, although an op overflows in the end."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit import trace

X = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))


def regression(rate):
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), rate)
    return lambda: F.mse_loss(model(X), X[:, :1]), model, optimizer


@pytest.mark.parametrize(("steps", "verdict"), [(4, "exploding"), (30, "inf")])
def test_the_rate_is_named_before_and_after_the_overflow(steps, verdict):
    report = trace(*regression(1e3), steps)
    assert report.verdict == verdict
    assert (report.culprit.op, report.culprit.phase) == ("step", "optimizer")
    assert "learning rate 1000" in str(report)
    assert "in steps 0 to 3" in str(report) or "5, and step 6 is infinite" in str(report)
    assert [fate.word for fate in report.harmed] == ["exploding", "exploding"]
    assert report.explain().repair.startswith("lower the learning rate")


def test_a_step_of_the_users_own_is_named_with_its_line():
    loss_of, model, optimizer = regression(1e3)

    def step():
        optimizer.zero_grad()
        loss_of().backward()
        optimizer.step()  # the culprit

    report = trace(step, model, optimizer, 30)
    assert (report.verdict, report.culprit.op) == ("inf", "step")
    assert report.culprit.source == "optimizer.step()  # the culprit"


def test_growth_that_began_later_counts_and_growth_long_past_does_not():
    loss_of, model, optimizer = regression(1e-2)
    taken = []

    def step(turn, spoil=1.0):
        taken.append(turn)
        optimizer.param_groups[0]["lr"] = 1e3 if len(taken) > turn else 1e-2
        return loss_of() * (spoil if len(taken) == 6 else 1.0)

    report = trace(lambda: step(3), model, optimizer, 30)
    assert "in steps 2 to" in str(report) or "in steps 3 to" in str(report)
    loss_of, model, optimizer = regression(1e-2)
    taken.clear()
    report = trace(lambda: step(99, torch.inf), model, optimizer, 8)
    assert (report.verdict, report.culprit.op) == ("inf", "mul")
