"""`check_gradient_flow` beside the guide's original, at each of its blind spots."""

import math
from copy import deepcopy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from originals import original
from torch import nn

from labkit.guide import check_gradient_flow
from labkit.guide.slope import slope_ratio

theirs = original("check_gradient_flow")


def passed(capsys, model) -> bool:
    """Does the guide's tool call every parameter normal?"""
    capsys.readouterr()
    theirs(model)
    out = capsys.readouterr().out
    return all(line.startswith("✅") for line in out.splitlines()) and bool(out)


def net(*widths) -> nn.Sequential:
    torch.manual_seed(0)
    pairs = pairwise(widths)
    return nn.Sequential(*(part for a, b in pairs for part in (nn.Linear(a, b), nn.Tanh())))


def with_gradients(model, *gradients) -> nn.Module:
    for p, g in zip(model.parameters(), gradients, strict=True):
        p.grad = torch.as_tensor(g, dtype=p.dtype).expand_as(p).clone()
    return model


@pytest.mark.parametrize(("bad", "word"), [(math.inf, "Inf"), (1e38, "overflows")])
def test_inf_and_huge_are_not_normal(capsys, bad, word):
    model = with_gradients(nn.Linear(2, 2), 1.0, bad)
    assert passed(capsys, model)
    assert word in check_gradient_flow(model)["bias"].text


def test_one_living_unit_does_not_hide_999_dead_ones(capsys):
    gradient = torch.zeros(1000, 3)
    gradient[0] = 1.0
    model = with_gradients(nn.Linear(3, 1000, bias=False), gradient)
    assert passed(capsys, model)
    assert "999 of 1000 units" in check_gradient_flow(model)["weight"].text


def test_a_scaled_loss_changes_no_line(capsys):
    model, x = net(4, 8, 1), torch.randn(5, 4)
    (model(x).square().mean() * 1e-10).backward()
    assert not passed(capsys, model)
    assert check_gradient_flow(model)


def test_a_gradient_far_below_the_others_is_told():
    model = with_gradients(nn.Linear(2, 2), 1.0, 1e-9)
    assert "near zero" in check_gradient_flow(model)["bias"].text


def test_who_is_left_out_of_the_optimizer_is_told(capsys):
    model = net(4, 8, 1)
    optimizer = torch.optim.SGD(model[0].parameters(), 0.1)
    model(torch.randn(5, 4)).square().mean().backward()
    assert passed(capsys, model)
    found = check_gradient_flow(model, optimizer)
    assert {line.name for line in found.odd} == {"2.weight", "2.bias"}
    assert "no optimizer holds it" in found["2.bias"].text


def test_a_stale_gradient_is_told(capsys):
    model, x = net(4, 8, 1), torch.randn(5, 4)
    for _ in range(2):
        model(x).square().mean().backward()
    assert passed(capsys, model)
    found = check_gradient_flow(model, loss=lambda: model(x).square().mean())
    assert "2.00 times" in found["0.weight"].text
    model.zero_grad()
    model(x).square().mean().backward()
    assert check_gradient_flow(model, loss=lambda: model(x).square().mean())


def test_half_a_path_that_is_cut_is_told(capsys):
    model, x = net(4, 8, 1), torch.randn(5, 4)

    def loss():
        h = model[1](model[0](x))
        return (model[2](h) + 3 * h.detach().sum(1, keepdim=True)).square().mean()

    loss().backward()
    assert passed(capsys, model)
    found = check_gradient_flow(model, loss=loss, slope=0.1)
    assert {line.name for line in found.odd} == {"0.weight", "0.bias"}
    assert "part of a path is cut" in found["0.bias"].text


def test_the_length_of_the_step_is_chosen():
    w = torch.ones(1, dtype=torch.float64)
    steep = slope_ratio(lambda: (1e3 * (w - 1)).sin().sum(), [w], [torch.full_like(w, 1e3)])
    assert steep == pytest.approx(1.0, abs=0.01)
    assert slope_ratio(lambda: w.sum() * 0.0 + 1.0, [w], [torch.ones_like(w)]) == 0.0
    assert slope_ratio(lambda: w.sum(), [w], [torch.full_like(w, 1e-30)]) is None
    assert w.item() == 1.0


def test_before_the_first_backward_one_line_says_so(capsys):
    model, x = net(4, 8, 1), torch.randn(5, 4)
    theirs(model)
    assert capsys.readouterr().out.count("无梯度") == 4
    assert "no backward has run" in check_gradient_flow(model).lines[0].text
    assert check_gradient_flow(model, loss=lambda: model(x).square().mean())


def test_a_step_that_moves_nothing_is_told():
    model = with_gradients(nn.Linear(2, 2).bfloat16(), 1e-6, 1.0)
    found = check_gradient_flow(model, torch.optim.SGD(model.parameters(), 1e-3), small=0.0)
    assert "moves no bit" in found["weight"].text


def test_nothing_is_changed():
    model, x = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout()), torch.randn(8, 4)
    optimizer = torch.optim.Adam(model.parameters())
    before, random = deepcopy(model.state_dict()), torch.get_rng_state()
    check_gradient_flow(model, optimizer, loss=lambda: model(x).square().mean(), slope=0.1)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not optimizer.state
    assert torch.equal(torch.get_rng_state(), random)


def test_embeddings_and_frozen_layers():
    model = nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Linear(4, 2))
    model[1].requires_grad_(False)
    F.mse_loss(model(torch.tensor([1, 2])), torch.zeros(2, 2)).backward()
    found = check_gradient_flow(model)
    assert found
    assert "2 more parameters are frozen" in found.lines[-1].text


def test_complex_weights():
    model = nn.ParameterList([torch.randn(4, 4, dtype=torch.complex64)])
    x = torch.randn(3, 4, dtype=torch.complex64)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    found = check_gradient_flow(
        model, optimizer, loss=lambda: (x @ model[0]).abs().square().mean(), slope=0.1
    )
    assert found, str(found)
