"""The third examination, first room again: what an optimizer cannot move, or moves too far."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.third_exam.optimizers import TWO, batch, two_layers

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "third_exam", "https://github.com/"


@fault(
    SET,
    "frozen",
    "add_ step _foreach_add_ addcdiv_ _foreach_addcdiv_",
    "origin",
    "A learned origin in Unix seconds: float32 has steps of 128 there",
)
def origin_of_time_in_unix_seconds(broken):
    class Decay(nn.Module):
        def __init__(self):
            super().__init__()
            self.origin = nn.Parameter(torch.tensor(1.7e9 if broken else 0.0))
            self.log_rate, self.height = (
                nn.Parameter(torch.tensor(-4.0)),
                nn.Parameter(torch.ones(())),
            )

        def forward(self, t):
            return self.height * torch.exp(-(t - self.origin) * self.log_rate.exp())

    model = Decay()
    t = torch.arange(0, 2560, 256.0) / 16 + (1.7e9 if broken else 0.0)
    y = torch.linspace(2, 0.1, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(model(t), y)
        loss.backward()
        optimizer.step()  # fault
        return loss

    return Program(step, model, optimizer, 4)


@fault(
    SET,
    "vanishing frozen",
    "mul mse_loss MulBackward0 MseLossBackward0 step addcdiv_",
    TWO,
    "Targets in SI units: capacities of picofarads, squared",
)
def capacities_in_farads(broken):
    model, (x, _) = two_layers(1), batch()
    unit = 1e-12 if broken else 1.0
    y = unit * (1 + x.square().sum(1, keepdim=True))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        capacity = unit * F.softplus(model(x))  # fault
        loss = F.mse_loss(capacity, y)  # fault
        loss.backward()
        optimizer.step()  # fault
        return loss

    return Program(step, model, optimizer, 3)


@fault(
    SET,
    "untrained frozen",
    "step closure",
    TWO,
    "torch.optim.LBFGS: a closure that returns the loss without a backward",
)
def closure_without_a_backward(broken):
    model, (x, y) = two_layers(), batch()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
    history = []

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        if not broken:
            loss.backward()
        return loss

    def step():
        history.append(float(optimizer.step(closure)))  # fault

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "dead vanishing",
    "pow PowBackward0 mul mean MeanBackward0 div square",
    TWO,
    "Micikevicius et al. 2018: gradients below the smallest half, without a scale",
)
def half_precision_gradients_without_a_scale(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 256)).half()
    x = torch.randn(512, 6).half()
    with torch.no_grad():
        y = model(x) + 0.001
    scale = 1.0 if broken else 2.0**14
    optimizer = torch.optim.SGD(model.parameters(), lr=300.0 / scale)

    def step():
        optimizer.zero_grad()
        loss = (model(x) - y).pow(2).mean()  # fault
        (loss.float() * scale).backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)


@fault(
    SET,
    "frozen",
    "_to_copy to ToCopyBackward0 step __init__ Adam add_param_group",
    "?",
    "discuss.pytorch.org: nn.Parameter(...).to(dtype) is a result and no parameter any more",
    building=True,
)
def parameter_that_was_cast_after_it_was_made(broken):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = two_layers().double()
            if broken:
                self.scale = nn.Parameter(torch.ones(3)).to(torch.float64)  # fault
            else:
                self.scale = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, x):
            return self.scale * self.net(x)

    model, (x, y) = Scaled(), batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)  # fault

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x.double()), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "frozen dead untrained severed",
    "zero_grad zero_ set_to_none step",
    TWO,
    "Gradients accumulated over more batches than an epoch has; each epoch starts from zero",
)
def accumulation_longer_than_the_epoch(broken):
    model, (x, y) = two_layers(), batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    every = 8 if broken else 3

    def epoch():
        optimizer.zero_grad()  # fault
        for i, rows in enumerate(torch.arange(12).split(4)):
            loss = F.cross_entropy(model(x[rows]), y[rows]) / every
            loss.backward()
            if (i + 1) % every == 0:
                optimizer.step()  # fault
                optimizer.zero_grad()
        return loss

    return Program(epoch, model, optimizer, 3)


@fault(
    SET,
    "inf nan",
    "div",
    "?",
    "Newton's method by hand on a parameter whose second derivative is zero",
)
def newton_step_on_a_straight_line(broken):
    torch.manual_seed(0)
    slope, shift = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(0.1))
    x = torch.linspace(-1, 1, 9)
    y = 2 * x + 1

    def step():
        fit = (slope * x - y).square().mean()
        loss = fit + (-shift if broken else (shift - 1).square())
        grads = torch.autograd.grad(loss, (slope, shift), create_graph=True)
        for p, g in zip((slope, shift), grads, strict=True):
            bend = torch.zeros(())
            if g.requires_grad:
                (bend,) = torch.autograd.grad(g, p, retain_graph=True)
            with torch.no_grad():
                p -= 0.5 * g / bend  # fault
        return loss.item()

    return Program(step, nn.ParameterList([slope, shift]), (), 2)


@fault(
    SET,
    "nan",
    "pow",
    "2.weight",
    "Gupta et al. 2018: an inverse root of a statistic of low rank, without its damping",
)
def inverse_root_of_a_statistic_of_low_rank(broken):
    class Shampoo(torch.optim.Optimizer):
        def __init__(self, parameters, lr=0.05, damping=1e-4):
            super().__init__(parameters, {"lr": lr, "damping": damping})

        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    direction = p.grad
                    if p.dim() == 2:
                        gram = p.grad @ p.grad.t() + group["damping"] * torch.eye(len(p))
                        values, vectors = torch.linalg.eigh(gram)
                        root = values.pow(-0.25)  # fault
                        direction = (vectors * root) @ vectors.t() @ p.grad
                    p.add_(direction, alpha=-group["lr"])

    model, (x, y) = two_layers(), batch()
    optimizer = Shampoo(model.parameters(), damping=0.0 if broken else 1e-4)

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)
