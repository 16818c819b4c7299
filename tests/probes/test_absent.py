"""What is missing: gradients handed to nobody, terms that join no loss, models never called."""

import pytest
import torch
import torch.nn.functional as F
from lines import line_of
from torch import nn
from torch.optim.swa_utils import AveragedModel

from labkit import trace

X, Y = torch.linspace(-1, 1, 24).view(8, 3).sin(), torch.linspace(0, 1, 8)[:, None]
LOOKS = {
    "nobody": lambda gradients: None,
    "a norm": lambda gradients: torch.stack([g.norm() for g in gradients]).norm(),
    "a multiple": lambda gradients: [g * 0.5 for g in gradients],
}


def linear(outputs: int = 1) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(3, outputs)


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize("look", LOOKS)
def test_a_gradient_that_is_only_looked_at_is_handed_to_nobody(look):
    model = linear()
    optimizer = sgd(model)

    def step():
        loss = F.mse_loss(model(X), Y)
        LOOKS[look](torch.autograd.grad(loss, list(model.parameters())))
        optimizer.step()

    report = trace(step, model, optimizer, steps=3)
    assert (report.verdict, report.culprit.op) == ("severed", "grad")
    assert [fate.name for fate in report.harmed] == ["weight", "bias"]
    assert ".grad" in report.explain().repair


@pytest.mark.parametrize("hand", ["to .grad", "to the parameter"])
def test_a_gradient_that_is_handed_over_is_well(hand):
    model = linear()
    optimizer = sgd(model)

    def step():
        gradients = torch.autograd.grad(F.mse_loss(model(X), Y), list(model.parameters()))
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradients, strict=True):
                if hand == "to .grad":
                    p.grad = g * 0.5
                else:
                    p.sub_(g * 0.1)
        optimizer.step()

    assert trace(step, model, optimizer, steps=3).verdict == "healthy"


SHARES = {
    "a share": lambda other: 0.3 * other.item(),
    "rounded": lambda other: round(other.item(), 4),
    "a sum": lambda other: 1 + other.item(),
}


def two_terms(total):
    torch.manual_seed(1)
    model = nn.ModuleDict({"main": nn.Linear(3, 1), "aux": nn.Linear(3, 1)})
    optimizer = sgd(model)

    def step():
        optimizer.zero_grad()
        loss, other = F.mse_loss(model["main"](X), Y), F.mse_loss(model["aux"](X), Y)
        total(loss, other).backward()
        optimizer.step()

    return trace(step, model, optimizer, steps=2)


@pytest.mark.parametrize("share", SHARES)
def test_a_term_that_is_added_as_a_number_made_of_it(share):
    report = two_terms(lambda loss, other: loss + SHARES[share](other))
    assert (report.verdict, report.culprit.op) == ("severed", "item")
    assert report.culprit.line == line_of(SHARES[share], f'"{share}"')
    assert [fate.name for fate in report.harmed] == ["aux.weight", "aux.bias"]


@pytest.mark.parametrize("log", [lambda other: None, lambda other: other.item()])
def test_a_loss_that_is_computed_and_never_added(log):
    def total(loss, other):
        log(other)
        return loss

    report = two_terms(total)
    assert (report.verdict, report.culprit.op) == ("severed", "mse_loss")
    assert report.culprit.line == line_of(two_terms, "loss, other =")
    assert "take its parameters out of the optimizer" in report.explain().repair


def test_a_term_that_is_added_is_well():
    assert two_terms(lambda loss, other: loss + 0.3 * other).verdict == "healthy"


@pytest.mark.parametrize("shown", [0.25, 0.08])
def test_a_number_that_is_only_logged_is_not_taken_for_a_weight(shown):
    torch.manual_seed(1)
    model = nn.ModuleDict({"main": nn.Linear(3, 1), "aux": nn.Linear(3, 1)})
    optimizer = sgd(model)

    def step():
        optimizer.zero_grad()
        (model["aux"](X) * 0 + shown).mean().item()
        (0.1 * F.mse_loss(model["main"](X), Y)).backward()
        optimizer.step()

    assert trace(step, model, optimizer, steps=2).verdict == "healthy"


def test_a_head_that_waits_without_a_loss_is_excused():
    torch.manual_seed(1)
    model = nn.ModuleDict({"main": nn.Linear(3, 1), "aux": nn.Linear(3, 1)})
    optimizer = sgd(model)

    def step():
        optimizer.zero_grad()
        model["aux"](X)
        F.mse_loss(model["main"](X), Y).backward()
        optimizer.step()

    assert trace(step, model, optimizer, steps=2).verdict == "healthy"


SETTLED = {
    "LogSoftmax": lambda h: F.cross_entropy(h[:, :1], torch.zeros(8).long()),
    "Softmax": lambda h: (h[:, :1].softmax(1) - 1).square().sum(),
    "Var": lambda h: h[:1].var(0, unbiased=False).mean(),
    "MseLoss": lambda h: F.mse_loss(h, h),
}


@pytest.mark.parametrize("op", SETTLED)
def test_a_loss_that_no_weight_can_change_is_dead_and_not_won(op):
    model = linear(2)
    optimizer = sgd(model)

    def step():
        optimizer.zero_grad()
        SETTLED[op](model(X)).backward()
        optimizer.step()

    report = trace(step, model, optimizer, steps=2)
    assert report.verdict == "dead"
    assert [fate.name for fate in report.harmed] == ["weight", "bias"]


@pytest.mark.parametrize(
    "won",
    [
        lambda h: F.relu(h - 100).mean(),
        lambda h: F.margin_ranking_loss(h[:, 0] + 100, h[:, 1], torch.ones(8), margin=1.0),
        lambda h: F.triplet_margin_loss(h, h.detach() + 1e-3, h.detach() - 100),
    ],
)
def test_a_loss_that_is_won_is_excused(won):
    model = linear(2)
    optimizer = sgd(model)

    def step():
        optimizer.zero_grad()
        won(model(X)).backward()
        optimizer.step()

    assert trace(step, model, optimizer, steps=2).verdict == "healthy"


def averaged(called: str):
    model = linear()
    average, optimizer = AveragedModel(model), sgd(model)

    def step():
        net = {"model": model, "average": average}[called]
        guess = net(X)
        loss = F.mse_loss(guess, Y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(model)

    return trace(step, model, optimizer, steps=3)


def test_an_average_that_is_called_in_the_place_of_its_model():
    report = averaged("average")
    assert (report.verdict, report.culprit.op) == ("untrained", "model")
    assert report.culprit.line == line_of(averaged, "guess = net(X)")
    assert [fate.word for fate in report.harmed] == ["not updated"] * 2
    assert "average" in report.explain().repair


def test_an_average_beside_its_model_is_well():
    assert averaged("model").verdict == "healthy"


def test_a_scaler_of_the_users_own_that_refuses_a_step_harms_nobody():
    model = linear().half()
    masters = [p.detach().clone().float() for p in model.parameters()]
    optimizer, scale = torch.optim.SGD(masters, lr=0.1), [2.0**24]

    def step():
        model.zero_grad()
        (F.mse_loss(model(X.half()).float(), Y) * scale[0]).backward()
        gradients = [p.grad.float() / scale[0] for p in model.parameters()]
        if not all(bool(g.isfinite().all()) for g in gradients):
            scale[0] = 1.0
            model.zero_grad()
            return
        for master, g in zip(masters, gradients, strict=True):
            master.grad = g
        optimizer.step()
        with torch.no_grad():
            for p, master in zip(model.parameters(), masters, strict=True):
                p.copy_(master)

    report = trace(step, model, optimizer, steps=3)
    assert (report.verdict, report.harmed) == ("healthy", ())
