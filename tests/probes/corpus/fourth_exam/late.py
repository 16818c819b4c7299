"""The fourth examination, tenth room: numbers that grow late, and are meant to."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.fourth_exam.leaves import data, net

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy


@healthy("Zheng et al. 2018: a graph without cycles, the penalty ten times as heavy each round")
def penalty_ten_times_as_heavy_each_round(_):
    torch.manual_seed(0)
    model = nn.ParameterDict({"w": torch.zeros(4, 4)})
    x = torch.randn(50, 4)
    x[:, 1] += 2 * x[:, 0]
    x[:, 3] += x[:, 1] - x[:, 2]
    state = {"rho": 1.0, "alpha": 0.0, "h": float("inf")}
    away = 1 - torch.eye(4)

    def cycles(w):
        return torch.matrix_exp(w * w).trace() - 4

    def step():
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
        for _ in range(8):
            w = model["w"] * away
            h = cycles(w)
            fit = 0.5 / 50 * (x - x @ w).square().sum()
            loss = fit + 0.5 * state["rho"] * h * h + state["alpha"] * h + 0.01 * w.abs().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        h = cycles((model["w"] * away).detach()).item()
        state["alpha"] += state["rho"] * h
        state["rho"] *= 10 if h > 0.25 * state["h"] else 1
        state["h"] = h
        return loss

    return Program(step, model, (), 7)


@healthy("Mnih et al. 2015: no reward for a long time, then some: the error rises from almost zero")
def rewards_that_come_late(_):
    q, (x, a) = net(), data()
    for p in q[2].parameters():
        p.data.mul_(0.01)
    target, count = copy.deepcopy(q).requires_grad_(False), [0]
    optimizer = torch.optim.RMSprop(q.parameters(), lr=1e-3)

    def step():
        count[0] += 1
        reward = torch.full((12,), 10.0) * (count[0] > 12) * (x[:, 0] > 0)
        with torch.no_grad():
            wanted = reward + 0.9 * target(x.roll(1, 0)).max(1).values
        loss = F.mse_loss(q(x).gather(1, a[:, None])[:, 0], wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if count[0] % 5 == 0:
            target.load_state_dict(q.state_dict())
        return loss

    return Program(step, {"q": q, "target": target}, optimizer, 20)


@healthy(
    "Nix, Weigend 1994: a likelihood whose spread shrinks to a floor, the loss falls below zero"
)
def likelihood_that_falls_below_zero(_):
    torch.manual_seed(0)
    model, x = (
        nn.ModuleDict({"mean": nn.Linear(3, 1), "spread": nn.Linear(3, 1)}),
        torch.randn(30, 3),
    )
    y = x @ torch.tensor([[1.0], [-0.5], [0.2]])
    model["mean"].weight.data.copy_(torch.tensor([[1.0, -0.5, 0.2]]) + 0.02)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)

    def step():
        sigma = F.softplus(model["spread"](x)) + 1e-3
        loss = -torch.distributions.Normal(model["mean"](x), sigma).log_prob(y).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 30)


@healthy("Laine, Aila 2017: a weight that climbs from nothing to a hundred by a Gaussian ramp")
def weight_that_climbs_a_gaussian_ramp(_):
    model, (x, y) = net(), data()
    teacher = copy.deepcopy(model)
    for p in teacher.parameters():
        p.detach_()
    optimizer, count = torch.optim.Adam(model.parameters(), lr=5e-3), [0]

    def step():
        t = min(1.0, count[0] / 10)
        weight = 100 * torch.exp(torch.tensor(-5 * (1 - t) ** 2)).item()
        count[0] += 1
        noisy = x + 0.3 * torch.randn_like(x)
        apart = F.mse_loss(model(noisy).softmax(1), teacher(x).softmax(1))
        loss = F.cross_entropy(model(x[:4]), y[:4]) + weight * apart
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for p, q in zip(teacher.parameters(), model.parameters(), strict=True):
            p.data.mul_(0.99).add_(q.data, alpha=0.01)
        return loss

    return Program(step, model, optimizer, 12)


@healthy("docs.pytorch.org, the first tutorial: the step gives back the running sum of all losses")
def running_sum_that_is_given_back(_):
    model, (x, y) = net(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    seen = {"loss": 0.0, "n": 0}

    def step():
        rows = torch.randint(0, 12, (4,))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[rows]), y[rows], reduction="sum")
        loss.backward()
        optimizer.step()
        seen["loss"] += loss.item()
        seen["n"] += 4
        return seen["loss"]

    return Program(step, model, optimizer, 20)


@healthy("Raissi et al. 2019, marched in time: each round adds a later window to the residual")
def residual_over_a_window_that_grows(_):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 12), nn.Tanh(), nn.Linear(12, 1))
    optimizer, end = torch.optim.Adam(model.parameters(), lr=5e-3), [0.5]

    def step():
        t = torch.linspace(0, end[0], int(20 * end[0]))[:, None].requires_grad_()
        u = model(t)
        slope = torch.autograd.grad(u.sum(), t, create_graph=True)[0]
        loss = (slope - u - t**2).square().sum() + 10 * (
            model(torch.zeros(1, 1)) - 1
        ).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        end[0] += 0.5
        return loss

    return Program(step, model, optimizer, 10)


@healthy("Jang et al. 2017: the temperature falls each step, the hinge margin of a critic widens")
def temperature_that_falls_each_step(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"choose": nn.Linear(6, 4), "read": nn.Linear(4, 6)})
    x, count = data()[0], [0]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step():
        tau = max(0.3, 0.8 ** count[0])
        count[0] += 1
        law = model["choose"](x)
        z = F.gumbel_softmax(law, tau=tau, hard=count[0] > 4)
        p = law.softmax(1)
        kl = (p * (p + 1e-20).log()).sum(1).mean() + torch.tensor(4.0).log()
        loss = F.mse_loss(model["read"](z), x) + kl
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 8)
