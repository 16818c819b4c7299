"""The fifth unseen set, second part: what never learns, and what need not."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.built.births import linear
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET = "unseen again"


@fault(
    SET,
    "frozen severed",
    "step zero_grad",
    "weight bias",
    "discuss.pytorch.org: the optimizer steps before the backward",
)
def step_before_the_backward(broken):
    model, x = linear(4, 1), torch.rand(5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()  # fault
        loss = (model(x) - 1).square().mean()
        if broken:
            optimizer.step()  # fault
            loss.backward()
        else:
            loss.backward()
            optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)


@fault(
    SET,
    "frozen",
    "add_param_group",
    "0.weight",
    "A generator of parameters that was read once before the optimizer got it",
    building=True,
)
def generator_of_parameters_already_begun(broken):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)), torch.rand(5, 4)
    found = model.parameters()
    dtype = next(found).dtype
    optimizer = torch.optim.SGD(found if broken else model.parameters(), lr=0.1)  # fault

    def step():
        optimizer.zero_grad()
        loss = (model(x.to(dtype)) - 1).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "frozen",
    "add_param_group Linear uniform_ empty linear addmm",
    "?",
    "discuss.pytorch.org: a layer that is made in forward",
    building=True,
)
def layer_made_in_forward(broken):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body = nn.Linear(4, 3)
            if not broken:
                self.head = nn.Linear(3, 1)

        def forward(self, x):
            h = torch.tanh(self.body(x))
            if broken:
                self.head = nn.Linear(3, 1)  # fault
            return self.head(h)

    model, x = Net(), torch.rand(5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "severed",
    "gt ge",
    "enter.weight enter.bias",
    "Neftci et al. 2019: spikes without a surrogate for their slope",
)
def spikes_without_a_surrogate(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"enter": nn.Linear(3, 6), "read": nn.Linear(6, 2)})
    x = torch.rand(5, 8, 3) * 2

    def step():
        charge, out = torch.zeros(5, 6), 0.0
        for moment in range(8):
            charge = 0.9 * charge + model.enter(x[:, moment])
            spike = (charge > 0.5).float()  # fault
            if not broken:
                soft = torch.sigmoid(5 * (charge - 0.5))
                spike = spike + soft - soft.detach()
            charge = charge - 0.5 * spike.detach()
            out = out + model.read(spike)
        return F.cross_entropy(out, torch.arange(5) % 2)

    return Program(step, model)


@fault(
    SET,
    "dead",
    "grid_sampler_2d GridSampler2D",
    "place.weight place.bias read.weight",
    "Jaderberg et al. 2015: a grid that lies outside the picture",
)
def glimpse_outside_the_picture(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"place": nn.Linear(4, 2), "read": nn.Linear(9, 1)})
    with torch.no_grad():
        model.place.bias.fill_(9.0 if broken else 0.1)
    picture, cue = torch.rand(3, 1, 8, 8), torch.rand(3, 4)
    base = F.affine_grid(torch.eye(2, 3)[None] * 0.3, (1, 1, 3, 3), align_corners=False)

    def step():
        grid = base + model.place(cue)[:, None, None]
        seen = F.grid_sample(picture, grid, align_corners=False)  # fault
        return (model.read(seen.flatten(1)) - 1).square().mean()

    return Program(step, model)


@fault(SET, "nan", "x mul", "weight bias", "Rows padded with NaN, and a mask that is multiplied")
def padding_of_nan_times_a_mask(broken):
    model, x = linear(4, 2), torch.rand(5, 4)
    mask = torch.tensor([1.0, 1, 1, 0, 0])
    x[3:] = float("nan") if broken else 0.0

    def step():
        out = model(x) * mask[:, None]  # fault
        return out.square().sum() / mask.sum()

    return Program(step, model)


@fault(
    SET,
    "frozen",
    "step add_ mul div",
    "bias",
    "You et al. 2017: a trust ratio of zero for what starts at zero",
)
def trust_ratio_of_a_bias_of_zero(broken):
    class Lars(torch.optim.Optimizer):
        def __init__(self, parameters, lr):
            super().__init__(parameters, {"lr": lr})

        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    trust = p.norm() / (p.grad.norm() + 1e-9)
                    if not broken and p.dim() == 1:
                        trust = torch.tensor(1.0)
                    p.add_(p.grad * trust, alpha=-group["lr"])  # fault

    model, x = linear(4, 1), torch.rand(5, 4)
    nn.init.zeros_(model.bias)
    optimizer = Lars(model.parameters(), 0.1)

    def step():
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        optimizer.step()  # fault
        return loss

    return Program(step, model, optimizer, 3)


@healthy("A second loss whose weight is zero for the first epochs")
def second_loss_with_a_weight_of_zero(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"body": nn.Linear(4, 3), "one": nn.Linear(3, 1), "two": nn.Linear(3, 1)})
    optimizer, x, weight = torch.optim.Adam(model.parameters(), lr=0.01), torch.rand(6, 4), 0.0

    def step():
        optimizer.zero_grad()
        h = torch.tanh(model.body(x))
        loss = (model.one(h) - 1).square().mean() + weight * (model.two(h) + 1).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("torch.no_grad: an evaluation between two epochs, softly failing samples left out")
def evaluation_alone(_):
    model, x = linear(4, 3).eval(), torch.rand(6, 4)

    def step():
        with torch.no_grad():
            chance = torch.softmax(model(x), 1)
            entropy = -(chance * chance.log()).sum(1)
            return float(entropy.mean())

    return Program(step, model)
