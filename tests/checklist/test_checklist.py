"""One planted fault turns exactly one item red; healthy models are all green."""

import math
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.cells.data import load_pbmc, validate_counts
from labkit.checklist import BOXES, checklist
from labkit.models.guards import OFF
from labkit.models.vae import NBVAE, elbo_loss


class Toy(nn.Module):
    """Two layers; `between` stands where a fault goes."""

    def __init__(self, between=torch.tanh, tail=None):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 1)
        self.between, self.tail = between, tail
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        return self.second(self.between(self.first(x)))


def data(count=5):
    draw = torch.Generator().manual_seed(1)
    return [(torch.randn(16, 6, generator=draw), torch.zeros(16, 1), i) for i in range(count)]


class Case:
    """A healthy run, ready to be broken; `extra` is added to the loss."""

    def __init__(self, between=torch.tanh, extra=lambda model, h, number: 0.0):
        self.model, self.extra = Toy(between), extra
        self.train, self.valid = data(), data(2)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-2)

    def step(self, batch):
        x, y, number = batch
        h = self.model.first(x)
        return F.mse_loss(self.model(x), y) + self.extra(self.model, h, number)

    def check(self, **options):
        given = (self.step, self.model, self.optimizer, self.train, self.valid)
        return checklist(*given, **options)


FAULTS = {}


def fault(key, name=None):
    def keep(make):
        FAULTS[name or key] = (key, make)
        return make

    return keep


@fault("data")
def nan_in_a_batch():
    case = Case()
    case.train[2][0][3, 1] = math.nan
    return case


@fault("data", "data of the validation")
def inf_in_the_validation():
    case = Case()
    case.valid[1][0][0, 0] = math.inf
    return case


@fault("trained")
def a_frozen_bias():
    case = Case()
    case.model.first.bias.requires_grad_(False)
    return case


@fault("held")
def a_strangers_weight():
    case = Case()
    case.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))]})
    return case


@fault("in the optimizer")
def a_head_is_left_out():
    case = Case()
    case.optimizer = torch.optim.SGD(case.model.first.parameters(), 0.1)
    return case


@fault("in the optimizer", "a layer made after the optimizer")
def a_layer_is_replaced():
    case = Case()
    case.model.second = nn.Linear(8, 1)
    return case


@fault("no_grad")
def no_grad_around_a_layer():
    def between(h):
        with torch.no_grad():
            return h.tanh()

    return Case(between)


@fault("no_grad", "no_grad around all")
def no_grad_around_everything():
    case = Case()
    step = case.step
    case.step = torch.no_grad()(step)
    return case


@fault("detach")
def features_are_detached():
    return Case(lambda h: h.detach().tanh())


@fault("values")
def features_go_through_a_list():
    return Case(lambda h: torch.tensor(h.tolist()).tanh())


@fault("path")
def every_unit_is_dead():
    return Case(lambda h: (h - 100).relu() + 0.5)


@fault("path", "part of a path is cut")
def half_of_a_path_is_detached():
    return Case(lambda h: h.tanh() + 2 * h.detach().tanh())


@fault("path", "a layer is not used")
def a_layer_is_not_used():
    case = Case()
    case.model.spare = nn.Linear(2, 2)
    case.optimizer.add_param_group({"params": list(case.model.spare.parameters())})
    return case


@fault("initial weights")
def weights_are_too_large():
    case = Case()
    case.model.first.weight.data.mul_(1e4)
    return case


@fault("initial weights", "weights are too small")
def weights_are_too_small():
    case = Case()
    case.model.first.weight.data.mul_(1e-5)
    return case


@fault("exp")
def an_exp_near_its_edge():
    return Case(extra=lambda model, h, _: 1e-26 * (h.tanh() + 59).exp().mean())


@fault("exp", "an exp beyond its edge")
def an_exp_beyond_its_edge():
    return Case(extra=lambda model, h, _: (h + 100).exp().mean())


@fault("log")
def a_log_of_zero():
    return Case(extra=lambda model, h, _: h.relu().log().mean())


@fault("log", "a log that where should hide")
def a_log_behind_where():
    return Case(extra=lambda model, h, _: torch.where(h > 0, h.relu().log(), 0.0).mean())


@fault("division")
def a_denominator_of_zero():
    return Case(extra=lambda model, h, _: (h / h.relu()).mean())


@fault("sqrt")
def a_distance_at_zero():
    def spread(model, h, _):
        return (h.unsqueeze(0) - h.unsqueeze(1)).square().sum(-1).sqrt().mean()

    return Case(extra=spread)


@fault("first step")
def a_parameter_starts_as_nan():
    case = Case()
    case.model.second.bias.data[0] = math.nan
    return case


@fault("loss")
def one_loss_is_infinite():
    return Case(extra=lambda model, h, number: math.inf if number == 3 else 0.0)


@fault("gradient norm")
def one_gradient_is_huge():
    return Case(extra=lambda model, h, number: h.square().mean() * (1e5 if number == 3 else 1.0))


@fault("gradient norm", "one gradient nearly vanishes")
def one_gradient_nearly_vanishes():
    case = Case()
    step = case.step
    case.step = lambda batch: step(batch) * (1e-6 if batch[2] == 3 else 1.0)
    return case


def poisoned(at):
    """A buffer that turns infinite in one step, and that nothing reads."""

    def extra(model, h, number):
        if model.training and number == at:
            model.seen.fill_(math.inf)
        return 0.0

    return Case(extra=extra)


@fault("state")
def a_buffer_turns_infinite():
    return poisoned(2)


@fault("final state")
def a_buffer_turns_infinite_in_the_last_step():
    return poisoned(4)


@fault("validation")
def eval_is_another_program():
    return Case(extra=lambda model, h, _: 0.0 if model.training else math.nan)


@pytest.mark.parametrize("name", FAULTS)
def test_one_fault_turns_exactly_one_item_red(name):
    key, make = FAULTS[name]
    result = make().check()
    assert [item.key for item in result.red] == [key], str(result)
    assert not result
    line = next(line for line in str(result).splitlines() if "✗" in line)
    assert f"Remedy: {result[key].box.remedy}" in line


def test_every_box_has_its_fault():
    assert {key for key, _ in FAULTS.values()} == {box.key for box in BOXES}
    assert len(BOXES) == 19


def test_a_healthy_network_is_all_green():
    result = Case().check()
    assert all(item.word == "ok" for item in result.items), str(result)
    lines = str(result).splitlines()
    assert len(lines) == len(BOXES) + 3
    assert result
    assert {len(result.of(name)) for name in ("no_grad", "NaN", "gradient flow", "stability")} == {
        *(4, 7, 5)
    }


def test_the_labs_model_on_64_real_cells_is_all_green():
    cells = load_pbmc().train
    model = NBVAE.for_cells(cells)
    result = checklist(
        lambda batch: elbo_loss(batch.counts, batch.tissue, model, batch.library)[0],
        *(model, torch.optim.Adam(model.parameters(), 5e-3)),
        *([cells[:32], cells[32:64]], [load_pbmc().test[:64]]),
        data=lambda batch: validate_counts(batch.counts),
    )
    assert all(item.word == "ok" for item in result.items), str(result)


def test_a_small_transformer_is_all_green():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.Sequential(nn.Embedding(20, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 20))
    mask = nn.Transformer.generate_square_subsequent_mask(6)
    batches = [torch.randint(0, 20, (4, 6)) for _ in range(4)]

    def step(tokens):
        hidden = model[1](model[0](tokens), mask=mask, is_causal=True)
        return F.cross_entropy(model[2](hidden).flatten(0, 1), tokens.flatten())

    result = checklist(step, model, torch.optim.AdamW(model.parameters()), batches, batches[:1])
    assert all(item.word == "ok" for item in result.items), str(result)


def test_everything_is_put_back_to_the_bit():
    case = Case(nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(), nn.Tanh()))
    case.step(case.train[0]).backward()
    case.optimizer.step()
    before = deepcopy((case.model.state_dict(), case.optimizer.state_dict()))
    grads = [p.grad.clone() for p in case.model.parameters()]
    random = torch.get_rng_state()
    case.check(slope=None)
    after = (case.model.state_dict(), case.optimizer.state_dict())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(v, before[0][k]) for k, v in after[0].items())
    assert all(torch.equal(p.grad, g) for p, g in zip(case.model.parameters(), grads, strict=True))
    assert repr(after[1]) == repr(before[1])
    assert case.model.training


def test_a_check_of_the_data_of_your_own():
    cells = load_pbmc().train
    model = NBVAE.for_cells(cells)
    cells.counts[0, 0] = 0.5
    result = checklist(
        lambda batch: elbo_loss(batch.counts, batch.tissue, model, guards=OFF)[0],
        *(model, torch.optim.Adam(model.parameters()), [cells[:16]]),
        data=lambda batch: validate_counts(batch.counts),
        slope=None,
    )
    assert [item.key for item in result.red] == ["data"]
    assert "'integer'" in result["data"].detail


def test_what_follows_is_not_red_but_told():
    result = FAULTS["first step"][1]().check()
    assert result["loss"].word == "follows"
    assert "from 'first step'" in result["loss"].detail
    assert result["final state"].word == "not run"


def test_bad_arguments_are_named():
    case = Case()
    with pytest.raises(ValueError, match="train: expected at least one batch"):
        checklist(case.step, case.model, case.optimizer, [])
    with pytest.raises(ValueError, match="step: expected a function that returns the loss"):
        checklist(lambda batch: 1.0, case.model, case.optimizer, case.train)

    def whole(batch):
        loss = case.step(batch)
        loss.backward()
        return loss

    with pytest.raises(ValueError, match="expected the loss before its backward"):
        checklist(whole, case.model, case.optimizer, case.train, slope=None)


def test_a_loss_that_takes_gradients_itself_and_complex_weights():
    case = Case()

    def step(batch):
        x = batch[0].clone().requires_grad_()
        (slope,) = torch.autograd.grad(case.model(x).sum(), x, create_graph=True)
        return (slope.norm(dim=1) - 1).square().mean() + case.model(x).square().mean()

    case.step = step
    assert case.check(), str(case.check())
    model = nn.ParameterList([torch.randn(4, 4, dtype=torch.complex64)])
    x = torch.randn(3, 4, dtype=torch.complex64)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    result = checklist(lambda _: (x @ model[0]).abs().square().mean(), model, optimizer, [0] * 3)
    assert result, str(result)


def test_a_stop_gradient_that_is_meant_can_be_said_so():
    case = Case(lambda h: h.tanh() + 2 * h.detach().tanh())
    assert not case.check()
    assert case.check(slope=None)
