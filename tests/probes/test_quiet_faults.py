"""Faults that every value survives: cuts that make a new leaf, writes nobody reads, undoing."""

import pytest
import torch
from torch import nn

from labkit import trace
from labkit.probes.verdict import Verdict


def _fed(x):
    return (x**2).sum()


def _detached(p):
    return p.detach().requires_grad_()


def _scaled(p):
    return (2 * p).detach().requires_grad_()


def _wrapped(p):
    return nn.Parameter(2 * p)


def _written(p):
    out = torch.zeros(3)
    out.data[:] = p
    return out * torch.ones(3, requires_grad=True)


def _written_under_no_grad(p):
    out, made = torch.zeros(3), 2 * p
    with torch.no_grad():
        out[:2] = made[:2]
    return out * torch.ones(3, requires_grad=True)


def _whole_numbers(p):
    out = torch.zeros(3, 2, dtype=torch.long)
    out[:, 0] = p
    return out * torch.ones(2, requires_grad=True)


def _given_as_data(p):
    layer = nn.Linear(3, 1, bias=False)
    layer.weight.data = (2 * p)[None]
    return layer(torch.ones(3))


def _loaded(p):
    layer = nn.Linear(3, 1, bias=False)
    layer.load_state_dict({"weight": (2 * p)[None]})
    return layer(torch.ones(3))


WAYS = (
    *(_detached, _scaled, _wrapped, _written, _written_under_no_grad),
    *(_whole_numbers, _given_as_data, _loaded),
)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_that_learns_in_the_place_of_what_it_was_made_from(way):
    model = nn.ParameterDict({"p": torch.tensor([1.0, 2.0, 3.0])})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = _fed(way(model["p"]))
        loss.backward()
        optimizer.step()

    report = trace(step, model, optimizer)
    assert report.verdict is Verdict.SEVERED
    first = way.__code__.co_firstlineno
    assert report.culprit.line in range(first, first + 6), str(report)
    assert {fate.name for fate in report.harmed} == {"p"}


def test_gradients_that_were_taken_and_given_to_nobody():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        torch.autograd.grad(_fed(model(torch.ones(4, 2))), list(model.parameters()))
        optimizer.step()

    report = trace(step, model, optimizer)
    assert (report.verdict, report.culprit.op) == (Verdict.SEVERED, "grad")
    assert {fate.name for fate in report.harmed} == {"weight", "bias"}


def test_a_gradient_that_was_dropped_in_one_of_several_steps():
    model = nn.Linear(2, 1)
    optimizer, count = torch.optim.SGD(model.parameters(), lr=0.1), [0]

    def step():
        optimizer.zero_grad()
        loss = _fed(model(torch.ones(4, 2)))
        loss.backward()
        if count[0] == 0:
            model.bias.grad = None
        optimizer.step()
        count[0] += 1

    assert trace(step, model, optimizer, steps=3).verdict is Verdict.HEALTHY


def test_a_step_that_a_bound_takes_back_is_no_fault():
    scale = nn.Parameter(torch.zeros(1))
    model = nn.ParameterDict({"scale": scale, "shift": torch.ones(1)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = (scale + (model["shift"] - 2) ** 2).sum()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            scale.clamp_(min=0)

    assert trace(step, model, optimizer, steps=4).verdict is Verdict.HEALTHY


def _clamped(grad):
    return grad.abs().neg().clamp(min=0)


@pytest.mark.parametrize("on", ["leaf", "result"])
def test_a_hook_whose_bound_is_zero(on):
    w = torch.ones(3, requires_grad=True)

    def step():
        h = 2 * w
        (w if on == "leaf" else h).register_hook(_clamped)
        return _fed(h)

    report = trace(step)
    assert (report.verdict, report.culprit.op) == (Verdict.DEAD, "clamp")


@pytest.mark.parametrize("rate", [0.02, 0.022])
def test_a_loss_that_runs_away_without_doubling_from_the_start(rate):
    torch.manual_seed(0)
    x = torch.randn(32, 4) * 6
    y, model = x @ torch.ones(4, 1), nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)

    def step():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    report = trace(step, model, optimizer, steps=24)
    assert (report.verdict, report.culprit.op) == (Verdict.EXPLODING, "step")


def test_a_loss_that_starts_near_zero_and_then_trains_is_no_divergence():
    model, scale = nn.Linear(2, 1), [1e-6]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        loss = scale[0] * (1 + _fed(model(torch.ones(4, 2))))
        loss.backward()
        optimizer.step()
        scale[0] = min(1.0, scale[0] * 1e3)  # a weight that is warmed up
        return loss

    assert trace(step, model, optimizer, steps=8).verdict is Verdict.HEALTHY


def test_two_losses_are_enough_where_one_step_tells_all():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e8)

    def step():
        optimizer.zero_grad()
        loss = _fed(model(torch.ones(4, 2)))
        loss.backward()
        optimizer.step()
        return loss

    report = trace(step, model, optimizer, steps=4)
    assert report.verdict in (Verdict.INF, Verdict.NAN)
    assert report.culprit.op == "step"
