"""A second set of unseen programs, written after the first one had been learned from."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.built.births import ALL, GH, linear
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET = "held out again"


@fault(
    SET,
    "nan inf",
    "div mul rsqrt reciprocal pow",
    "weight",
    GH + "april-tools/cirkit/issues/279",
    building=True,
)
def initial_scale_divided_by_an_empty_fan(broken):
    class Net(nn.Module):
        def __init__(self, fan):
            super().__init__()
            torch.manual_seed(0)
            scale = 1.0 / torch.tensor(float(fan)).sqrt()  # fault
            self.weight = nn.Parameter(torch.randn(3, 4) * scale)

        def forward(self, x):
            return torch.tanh(x @ self.weight.t())

    model, x = Net(0 if broken else 4), torch.rand(5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer)


@fault(SET, "nan inf", "div", "weight bias", GH + "facebookresearch/schedule_free/issues/5")
def own_optimizer_without_eps(broken):
    class Sign(torch.optim.Optimizer):
        def __init__(self, parameters, lr):
            super().__init__(parameters, {"lr": lr})

        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    size = p.grad.abs() + (0.0 if broken else 1e-8)
                    p.add_(p.grad / size, alpha=-group["lr"])  # fault

    model = linear(4, 2)
    x = torch.zeros(3, 4)
    x[:, 0] = 1.0
    optimizer = Sign(model.parameters(), 0.01)

    def step():
        optimizer.zero_grad()
        loss = (model(x)[:, 0] - 1).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "nan",
    "div",
    "?",
    "van den Oord et al. 2017: codebook by moving averages, without smoothing",
)
def codebook_entry_that_nobody_uses(broken):
    class Codes(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.encode = nn.Linear(4, 2)
            self.register_buffer("code", torch.tensor([[0.0, 0.0], [0.1, 0.1], [90.0, 90.0]]))

        def forward(self, x):
            z = self.encode(x)
            chosen = F.one_hot(torch.cdist(z, self.code).argmin(1), 3).float()
            quantised = chosen @ self.code
            with torch.no_grad():
                count = chosen.sum(0) + (0.0 if broken else 1e-5)
                self.code.copy_((chosen.t() @ z) / count[:, None])  # fault
            return z + (quantised - z).detach()

    model, x = Codes(), torch.rand(8, 4)
    return Program(lambda: model(x).square().mean(), model)


@fault(SET, "dead", "floor", "weight bias", GH + "keras-team/keras/issues/11157")
def positions_made_by_floor(broken):
    model, x = linear(4, 2), torch.rand(6, 4)

    def step():
        where = model(x) * 5
        cell = torch.floor(where)  # fault
        if not broken:
            cell = where + (cell - where).detach()
        return (cell - 2).square().mean()

    return Program(step, model)


@fault(SET, "nan inf", "div", ALL, "Jang et al. 2017: a temperature that is annealed to zero")
def temperature_annealed_to_zero(broken):
    model, x = linear(4, 3), torch.rand(6, 4)
    temperature = torch.tensor(0.0 if broken else 0.5)

    def step():
        logits = model(x)
        soft = torch.softmax(logits / temperature, 1)  # fault
        return (soft * torch.arange(3.0)).sum(1).mean()

    return Program(step, model)


@fault(
    SET,
    "inf nan",
    "exp",
    "?",
    "torch.nn.PoissonNLLLoss with log_input: the rate is exp of the output",
)
def poisson_rate_of_a_large_log(broken):
    model, x = linear(4, 3, scale=400 if broken else 1), torch.ones(6, 4)
    y = torch.poisson(torch.full((6, 3), 2.0))

    def step():
        return F.poisson_nll_loss(model(x), y, log_input=True)  # fault

    return Program(step, model)


@fault(SET, "nan inf", "pow", ALL, "Lin et al. 2017, focal loss with an exponent below one")
def focal_weight_of_a_sure_answer(broken):
    model, x = linear(4, 1), torch.rand(6, 4)
    with torch.no_grad():
        model.bias.fill_(30.0)

    def step():
        p = torch.sigmoid(model(x))
        rest = 1 - p if broken else (1 - p).clamp(min=1e-6) + 0 * p
        weight = rest**0.5  # fault
        return (weight * F.softplus(-model(x))).mean() + model(x).mean()

    return Program(step, model)


@fault(SET, "nan", "div", "?", "Milletari et al. 2016: Dice of an empty mask")
def dice_of_an_empty_mask(broken):
    torch.manual_seed(0)
    model = nn.Conv2d(1, 1, 3, padding=1)
    x = torch.rand(2, 1, 6, 6)
    mask = torch.zeros(2, 1, 6, 6)
    mask[0, 0, 2:4, 2:4] = 1.0

    def step():
        p = torch.relu(model(x) - 50.0)
        both = (p * mask).sum((1, 2, 3))
        either = p.sum((1, 2, 3)) + mask.sum((1, 2, 3)) + (0.0 if broken else 1.0)
        return (1 - 2 * both / either).mean() + model(x).square().mean()  # fault

    return Program(step, model)


@fault(
    SET,
    "frozen",
    "step add_ _foreach_add_ addcdiv_",
    "head.weight head.bias",
    "a parameter group whose learning rate was left at zero",
)
def group_with_a_rate_of_zero(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"body": nn.Linear(4, 3), "head": nn.Linear(3, 1)})
    groups = [
        {"params": model.body.parameters(), "lr": 0.1},
        {"params": model.head.parameters(), "lr": 0.0 if broken else 0.1},
    ]
    optimizer = torch.optim.SGD(groups)
    x, y = torch.rand(6, 4), torch.rand(6, 1)

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(model.head(torch.tanh(model.body(x))), y)
        loss.backward()
        optimizer.step()  # fault
        return loss

    return Program(step, model, optimizer, 3)


@fault(
    SET,
    "severed",
    "FloatTensor tensor Tensor item _local_scalar_dense",
    ALL,
    GH + "pytorchbearer/torchbearer/issues/414",
)
def rewards_collected_in_a_float_tensor(broken):
    model, x = linear(4, 2), torch.rand(6, 4)

    def step():
        scores = [row.sum() for row in model(x)]
        if broken:
            total = torch.FloatTensor([float(score) for score in scores])  # fault
        else:
            total = torch.stack(scores)
        return (total - 1).square().mean()

    return Program(step, model)


@fault(
    SET,
    "nan inf",
    "log logdet _linalg_slogdet linalg_slogdet",
    "?",
    "Rezende, Mohamed 2015: log-determinant of a singular flow",
)
def log_determinant_of_a_singular_matrix(broken):
    weight = nn.Parameter(torch.ones(3, 3) if broken else torch.eye(3) + 0.1)
    x = torch.rand(5, 3)

    def step():
        z = x @ weight
        return 0.5 * z.square().sum(1).mean() - torch.logdet(weight)  # fault

    return Program(step)


@fault(SET, "nan", "sub", "?", "A relative score of two options that are both forbidden")
def difference_of_two_forbidden_scores(broken):
    model, x = linear(4, 3), torch.rand(5, 4)
    banned = torch.tensor([False, broken, broken])

    def step():
        scores = model(x).masked_fill(banned, float("-inf"))
        margin = scores[:, 2] - scores[:, 1]  # fault
        return torch.sigmoid(margin).mean()

    return Program(step, model)


# -- controls ---------------------------------------------------------------------------------


@healthy("Forward algorithm of a hidden Markov model, in log space")
def chain_that_starts_in_one_state(_):
    torch.manual_seed(0)
    move = nn.Parameter(torch.randn(3, 3))
    emit = torch.randn(6, 3)

    def step():
        alpha = torch.tensor([0.0, float("-inf"), float("-inf")])
        for row in emit:
            alpha = torch.logsumexp(alpha[:, None] + move.log_softmax(1), 0) + row
        return -torch.logsumexp(alpha, 0)

    return Program(step)


@healthy("Cuturi 2013, in the log domain")
def sinkhorn_in_the_log_domain(_):
    torch.manual_seed(0)
    x, y = torch.rand(6, 2, requires_grad=True), torch.rand(6, 2)

    def step():
        cost, f, g = torch.cdist(x, y).square(), torch.zeros(6), torch.zeros(6)
        for _ in range(10):
            f = -0.1 * torch.logsumexp((g[None] - cost) / 0.1, 1)
            g = -0.1 * torch.logsumexp((f[:, None] - cost) / 0.1, 0)
        return (torch.exp((f[:, None] + g[None] - cost) / 0.1) * cost).sum()

    return Program(step)


@healthy("A column of the table that is missing and never read")
def missing_column_that_is_not_used(_):
    model, table = linear(3, 1), torch.rand(6, 4)
    table[:, 3] = float("nan")
    return Program(lambda: model(table[:, :3]).square().mean(), model)


@healthy("Schroff et al. 2015: only hard triplets count")
def hard_examples_only(_):
    model, x, y = linear(4, 2), torch.rand(8, 4), torch.rand(8, 2)

    def step():
        loss = (model(x) - y).square().mean(1)
        return torch.topk(loss, 3).values.mean()

    return Program(step, model)


@healthy("Srivastava et al. 2014 and He et al. 2016: a block that is dropped in this step")
def stochastic_depth(_):
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)])
    x, count = torch.rand(6, 4), [0]
    optimizer = torch.optim.Adam(model.parameters())

    def step():
        optimizer.zero_grad()
        h, count[0] = x, count[0] + 1
        for number, block in enumerate(model[:2]):
            if number != count[0] % 2:
                h = h + torch.tanh(block(h))
        loss = model[2](h).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)
