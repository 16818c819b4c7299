"""A fifth unseen set, written after the fourth had been learned from: numbers and layers."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.built.births import GH, linear
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault = corpus.fault
SET = "unseen again"


@fault(SET, "inf nan", "log", "?", "A log-sum-exp over the edges of a node that has none")
def pooled_energy_of_a_node_without_edges(broken):
    model, x = linear(4, 1), torch.rand(5, 4)
    target = torch.tensor([0, 1, 1, 2, 3])
    nodes = 5 if broken else 4

    def step():
        energy = model(x)[:, 0]
        mass = torch.zeros(nodes).index_add(0, target, energy.exp())
        return torch.log(mass).square().mean()  # fault

    return Program(step, model)


@fault(
    SET, "inf nan", "erfinv", "?", "A normal drawn from a uniform number that was rounded to one"
)
def normal_from_a_uniform_of_one(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"mean": nn.Linear(4, 2), "spread": nn.Linear(4, 2)})
    x, uniform = torch.rand(5, 4), torch.linspace(0.1, 1.0 if broken else 0.9, 10).view(5, 2)

    def step():
        noise = torch.erfinv(2 * uniform - 1) * 2**0.5  # fault
        z = model.mean(x) + F.softplus(model.spread(x)) * noise
        return z.square().mean()

    return Program(step, model)


@fault(SET, "nan", "div", "weight bias power", "Box, Cox 1964: a power that starts at zero")
def power_transform_that_starts_at_zero(broken):
    model, x = linear(3, 1), torch.rand(5, 3) + 0.5
    model.power = nn.Parameter(torch.tensor(0.0 if broken else 0.1))

    def step():
        z = (x**model.power - 1) / model.power  # fault
        return (model(z) - 1).square().mean()

    return Program(step, model)


@fault(SET, "nan", "div", "?", "Gu et al. 2022: a state of rate zero, discretised by division")
def state_of_rate_zero(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"enter": nn.Linear(2, 3), "leave": nn.Linear(3, 1)})
    model.rate = nn.Parameter(-torch.arange(3.0) if broken else -torch.arange(1.0, 4.0))
    x = torch.rand(4, 6, 2)

    def step():
        kept = torch.exp(0.1 * model.rate)
        taken = (kept - 1) / model.rate  # fault
        state, u = torch.zeros(4, 3), model.enter(x)
        for moment in range(6):
            state = kept * state + taken * u[:, moment]
        return (model.leave(state) - 1).square().mean()

    return Program(step, model)


@fault(SET, "nan", "native_layer_norm", "?", "A layer norm without epsilon, and a row of padding")
def layer_norm_without_epsilon(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.LayerNorm(4, eps=0.0 if broken else 1e-5), nn.Linear(4, 1))
    x = torch.rand(5, 4)
    x[3] = 0.0

    def step():
        return (model(x) - 1).square().mean()  # fault

    return Program(step, model)


@fault(SET, "nan inf", "logit", "?", "Dinh et al. 2017: pixels that are exactly black or white")
def logit_of_a_white_pixel(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"shift": nn.Linear(2, 2), "scale": nn.Linear(2, 2)})
    x = torch.tensor([[0.0, 0.3, 1.0, 0.5], [0.2, 0.9, 0.4, 1.0]])

    def step():
        z = torch.logit(x if broken else 0.05 + 0.9 * x)  # fault
        one, two = z.chunk(2, 1)
        scale = torch.tanh(model.scale(one))
        two = two * scale.exp() + model.shift(one)
        return 0.5 * (one.square() + two.square()).sum(1).mean() - scale.sum(1).mean()

    return Program(step, model)


@fault(SET, "inf nan", "log", "?", "A likelihood as a product of many probabilities")
def product_of_many_probabilities(broken):
    model, x = linear(4, 1), torch.rand(400 if broken else 20, 4)

    def step():
        chance = torch.sigmoid(model(x))
        return -torch.log(chance.prod())  # fault

    return Program(step, model)


@fault(SET, "inf nan", "special_i0 i0", "?", "Von Mises likelihood with a Bessel function by hand")
def bessel_function_of_a_sure_angle(broken):
    torch.manual_seed(0)
    model, x, angle = nn.Linear(4, 2), torch.rand(5, 4), torch.rand(5)
    with torch.no_grad():
        model.bias[1] = 120.0 if broken else 1.0

    def step():
        mean, sure = model(x).unbind(1)
        sure = F.softplus(sure)
        size = torch.special.i0(sure)  # fault
        return (torch.log(size) - sure * torch.cos(angle - mean)).mean()

    return Program(step, model)


@fault(
    SET,
    "inf nan",
    "log",
    "?",
    "A scale of zero handed to the inverse of softplus",
    building=True,
)
def inverse_softplus_of_no_scale(broken):
    class Noise(nn.Module):
        def __init__(self, start):
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Linear(4, 1)
            raw = torch.log(torch.expm1(torch.full((1,), start)))  # fault
            self.raw = nn.Parameter(raw)

        def forward(self, x, y):
            law = torch.distributions.Normal(self.net(x), F.softplus(self.raw), False)
            return -law.log_prob(y).mean()

    model, x, y = Noise(0.0 if broken else 0.5), torch.rand(5, 4), torch.rand(5, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step():
        optimizer.zero_grad()
        loss = model(x, y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer)


@fault(
    SET, "nan", "mean", "?", GH + "Lightning-AI/torchmetrics: a task without a label in this batch"
)
def task_without_a_label_in_this_batch(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"body": nn.Linear(4, 3), "one": nn.Linear(3, 1), "two": nn.Linear(3, 1)})
    x, y = torch.rand(6, 4), torch.rand(6, 2)
    y[0 if broken else 3 :, 1] = float("nan")

    def step():
        h, known = torch.tanh(model.body(x)), ~y.isnan()
        first = (model.one(h)[:, 0] - y[:, 0]).square()[known[:, 0]].mean()
        second = (model.two(h)[:, 0] - y[:, 1])[known[:, 1]].square().mean()  # fault
        return first + second

    return Program(step, model)


@fault(
    SET, "exploding inf", "addmm relu mm linear mul threshold", "?", "He et al. 2016, without norms"
)
def forty_residual_blocks_without_norms(broken):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.blocks = nn.ModuleList([nn.Linear(8, 8) for _ in range(40)])
            self.out = nn.Linear(8, 1)
            for block in self.blocks:
                nn.init.normal_(block.weight, std=0.8 if broken else 0.02)

        def forward(self, x):
            for block in self.blocks:
                x = x + torch.relu(block(x))  # fault
            return self.out(x)

    model, x = Net(), torch.rand(5, 8)
    return Program(lambda: model(x).mean(), model)


@fault(SET, "vanishing", "addmm mm tanh linear", "?", "Glorot, Bengio 2010: weights of 0.01")
def twelve_layers_of_tiny_weights(broken):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.ModuleList([nn.Linear(8, 8, bias=False) for _ in range(12)])
            for layer in self.layers:
                nn.init.normal_(layer.weight, std=0.01 if broken else 0.4)

        def forward(self, x):
            for layer in self.layers:
                x = torch.tanh(layer(x))  # fault
            return x

    model, x = Net(), torch.rand(5, 8)
    model.out = nn.Linear(8, 1)
    return Program(lambda: (model.out(model(x)) - 1).square().mean(), model)
