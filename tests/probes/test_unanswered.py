"""Gradients that are asked for and not handed back, and the programs that look like it."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from labkit import trace
from labkit.probes.verdict import Verdict


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), torch.randn(12, 4)


class Bounded(torch.autograd.Function):
    """A clamp to a learned bound; the bound gets no gradient from it."""

    @staticmethod
    def forward(ctx, h, bound):
        ctx.save_for_backward(h, bound)
        return h.clamp(-1, 1) * bound

    @staticmethod
    def backward(ctx, grad):
        _, bound = ctx.saved_tensors
        return grad * bound, None


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, _ = two_layers()
        self.bound = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return Bounded.apply(self.body(x), self.bound.exp())


def test_a_backward_that_returns_none_is_named_where_it_returns():
    model, x = Net(), two_layers()[1]
    report = trace(
        lambda: model(x).square().mean(), model, torch.optim.SGD(model.parameters(), 0.1)
    )
    assert report.verdict is Verdict.SEVERED
    assert [fate.name for fate in report.harmed] == ["bound"]
    assert report.culprit.op == "BoundedBackward"
    assert report.culprit.source == "return grad * bound, None"
    assert "return a gradient for every input" in report.explain().repair


def test_a_backward_that_returns_none_is_no_fault_where_the_gradient_comes_another_way():
    model, x = Net(), two_layers()[1]
    step = lambda: model(x).square().mean() + model.bound.square().sum()  # noqa: E731
    assert trace(step, model, torch.optim.SGD(model.parameters(), 0.1)).verdict is Verdict.HEALTHY


def field(create_graph):
    model, x = two_layers()
    x.requires_grad_()
    optimizer = torch.optim.Adam(model.parameters())

    def step():
        (slope,) = torch.autograd.grad(model(x)[:, 0].sum(), x, create_graph=create_graph)
        return (slope - 1).square().mean() + model[2].bias.square().sum()

    return trace(step, model, optimizer)


def test_a_derivative_without_a_graph_is_named():
    report = field(False)
    assert report.verdict is Verdict.SEVERED
    assert report.culprit.op == "grad"
    assert report.culprit.source.startswith("(slope,) = torch.autograd.grad(")
    assert "create_graph=True" in report.explain().repair
    assert [fate.name for fate in report.harmed] == ["0.weight", "0.bias", "2.weight"]


def test_a_derivative_with_a_graph_is_silent():
    assert field(True).verdict is Verdict.HEALTHY


def curved(create_graph):
    model, x = two_layers()
    x.requires_grad_()

    def step():
        (slope,) = torch.autograd.grad(model(x)[:, 0].sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=create_graph)
        return (bend - 1).square().mean() + model[2].bias.square().sum()

    return trace(step, model, torch.optim.Adam(model.parameters()))


def test_a_second_derivative_without_a_graph_is_named():
    report = curved(False)
    assert report.verdict is Verdict.SEVERED
    assert report.culprit.source.startswith("(bend,) = torch.autograd.grad(")
    assert curved(True).verdict is Verdict.HEALTHY


def test_a_derivative_that_only_weighs_the_terms_of_a_loss_is_silent():
    model, x = two_layers()
    optimizer = torch.optim.Adam(model.parameters())

    def step():
        out = model(x)
        losses = out[:, 0].square().mean(), (out[:, 1] - 1).square().mean()
        sizes = [torch.autograd.grad(one, model[2].weight, retain_graph=True)[0] for one in losses]
        optimizer.zero_grad()
        loss = sum(one / (size.norm() + 1e-6) for one, size in zip(losses, sizes, strict=True))
        loss.backward()
        optimizer.step()

    assert trace(step, model, optimizer, 2).verdict is Verdict.HEALTHY


def siblings(teacher_of_itself):
    """A backbone that is frozen after the optimizer was built."""
    with trace() as tracing:
        torch.manual_seed(0)
        model = nn.ModuleDict({"body": nn.Linear(4, 8), "head": nn.Linear(8, 2)})
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        model["body"].requires_grad_(False)
        tracing.watch(model, optimizer)
        x, y = torch.randn(12, 4), torch.randn(12, 2)
        for _ in range(2):
            optimizer.zero_grad()
            with torch.no_grad():
                goal = model["head"](torch.tanh(model["body"](x + 0.1)))
            guess = model["head"](torch.tanh(model["body"](x)))
            loss = F.mse_loss(guess, goal + 1 if teacher_of_itself else y)
            loss.backward()
            optimizer.step()
            tracing.step()
    return tracing.report


def test_a_body_that_its_teacher_froze_is_named():
    report = siblings(True)
    assert report.verdict is Verdict.SEVERED
    assert report.culprit.op == "requires_grad_"
    assert "deep copy" in report.culprit.remark
    assert {fate.name for fate in report.harmed} == {"body.weight", "body.bias"}


def test_a_body_that_was_frozen_late_and_is_evaluated_too_is_silent():
    assert siblings(False).verdict is Verdict.HEALTHY


def served(written):
    """A client trains a copy; the server takes its weights over, or does not."""
    server, x = two_layers()
    y = torch.randn(12, 2)

    def step():
        client = copy.deepcopy(server)
        optimizer = torch.optim.SGD(client.parameters(), 0.1)
        F.mse_loss(client(x), y).backward()
        optimizer.step()
        if written:
            server.load_state_dict(client.state_dict())

    return trace(step, server, steps=2)


def test_a_server_that_takes_over_what_its_clients_learned_is_silent():
    assert served(True).verdict is Verdict.HEALTHY


def test_a_copy_whose_learning_is_lost_is_named():
    report = served(False)
    assert report.verdict is not Verdict.HEALTHY
    assert "copy.deepcopy(server)" in report.culprit.source
