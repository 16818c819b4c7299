"""What the fourth unseen set and its readers found: readings that were wrong until then."""

import torch
from torch import nn

from labkit import trace


def small(bias: float = 0.0) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    with torch.no_grad():
        model.bias.fill_(bias)
    return model, torch.rand(6, 4)


# -- exact zeros --------------------------------------------------------------------------------


def test_a_clamp_whose_bound_is_zero_is_no_product_with_zero():
    model, x = small(-9.0)
    report = trace(lambda: (model(x).clamp(min=0) - 1).square().mean(), model)
    assert (report.verdict, report.culprit.op) == ("dead", "ClampBackward1")
    report = trace(lambda: (model(x) * 0).sum() + model.bias.sum(), model)
    assert report.verdict == "healthy"
    assert {fate.excused for fate in report.parameters} == {"", "multiplied by a constant zero"}


def test_two_gradients_that_cancel_name_the_op_that_sent_both():
    model, x = small()

    def step():
        h = torch.tanh(model(x))
        return torch.exp(h - h).sum()

    report = trace(step, model)
    assert (report.verdict, report.culprit.op) == ("dead", "SubBackward0")
    assert report.culprit.source == "return torch.exp(h - h).sum()"


def test_the_second_derivative_of_a_relu_may_be_zero():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1))
    x = torch.rand(6, 4, requires_grad=True)

    def step():
        (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        return (slope.norm(dim=1) - 1).square().mean()

    report = trace(step, critic)
    assert report.verdict == "healthy"
    reasons = {fate.name: fate.excused for fate in report.parameters}
    assert "second derivative" in reasons["0.bias"]
