"""Readings that were wrong once: each of these programs was told another story."""

import torch
import torch.nn.functional as F
from torch import nn

from labkit import trace


def regression() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)), torch.randn(16, 4)


def test_a_loss_that_was_made_trainable_afterwards_is_severed_not_excused():
    model, x = regression()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step():
        optimizer.zero_grad()
        with torch.no_grad():
            loss = model(x).square().mean()
        loss.requires_grad_()
        loss.backward()
        optimizer.step()

    report = trace(step, model)
    assert report.verdict == "severed"
    assert report.culprit.op == "no_grad"
    assert report.culprit.source == "loss = model(x).square().mean()"


def test_a_backward_that_autograd_refused_is_severed_not_excused():
    model, x = regression()

    def step():
        with torch.no_grad():
            loss = model(x).square().mean()
        loss.backward()

    report = trace(step, model)
    assert report.verdict == "severed"
    assert "does not require grad" in report.error


def test_a_loss_without_a_graph_is_a_fault_where_an_optimizer_waits_for_it():
    model, x = regression()

    @torch.no_grad()
    def evaluation():
        return model(x).square().mean()

    assert trace(evaluation, model).verdict == "untrained"  # in train mode: was it meant?
    assert trace(evaluation, model.eval()).verdict == "healthy"
    assert trace(evaluation, model, torch.optim.SGD(model.parameters(), 0.1)).verdict == "severed"


def test_an_op_that_reads_only_a_shape_cuts_nothing():
    model, x = regression()

    def step():
        h = model(x)
        return (h + torch.zeros_like(h) + h.new_ones(16, 1)).square().mean()

    report = trace(step, model)
    assert not [op.name for op in report.ops if op.cut]


def test_a_shape_is_a_cut_where_it_is_all_that_reaches_the_loss():
    model, x = regression()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    report = trace(lambda: torch.zeros_like(model(x)).sum(), model, optimizer)
    assert (report.verdict, report.culprit.op) == ("severed", "zeros_like")
    half = nn.Linear(4, 1)
    report = trace(lambda: (half(x) + torch.zeros_like(model(x))).sum(), [half, model])
    assert (report.verdict, report.culprit.op) == ("severed", "zeros_like")


def test_a_mean_is_not_what_makes_a_gradient_vanish():
    torch.manual_seed(0)
    layers = [layer for _ in range(12) for layer in (nn.Linear(16, 16), nn.Sigmoid())]
    model, x = nn.Sequential(*layers, nn.Linear(16, 1)), torch.randn(64, 16)
    report = trace(lambda: model(x).square().mean(), model)
    assert report.verdict == "vanishing"
    assert report.culprit.op == "SigmoidBackward0"


def test_beside_a_huge_gradient_an_ordinary_one_has_not_vanished():
    torch.manual_seed(0)
    small, large = nn.Linear(4, 1), nn.Linear(4, 1)
    x = torch.randn(16, 4)
    report = trace(
        lambda: F.softplus(small(x)).mean() + 1e10 * large(x).square().mean(), [small, large]
    )
    assert {fate.name: fate.word for fate in report.parameters}["0.weight"] == "ok"
