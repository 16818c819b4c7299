"""The examination, fourth room: schedules, groups, accumulation, averages, running statistics."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "exam", "https://github.com/"
ALL = "norm.weight norm.bias body.weight body.bias head.weight head.bias"


class Net(nn.Module):
    """A normalised two-layer classifier."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.norm, self.head = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(F.gelu(self.norm(self.body(x))))


def batch(n=12):
    """Inputs and classes."""
    generator = torch.Generator().manual_seed(5)
    return torch.randn(n, 6, generator=generator), torch.randint(0, 3, (n,), generator=generator)


@fault(
    SET,
    "nan",
    "step add_ _foreach_add_ mul_ _foreach_mul_ sub_ _foreach_sub_ addcdiv_ _foreach_addcdiv_",
    ALL,
    GH + "VainF/DeepLabV3Plus-Pytorch/issues/59",
)
def polynomial_schedule_that_runs_past_its_end(broken):
    model, (x, y) = Net(), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    total, count = 2 if broken else 20, [0]

    def step():
        with np.errstate(invalid="ignore"):
            rate = 0.01 * np.power(1 - np.float64(count[0]) / total, 0.9)
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        count[0] += 1
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()  # fault
        return loss

    return Program(step, model, optimizer, 4)


@fault(
    SET,
    "frozen",
    "step add_ _foreach_add_ addcdiv_ _foreach_addcdiv_",
    ALL,
    GH + "kohya-ss/sd-scripts/issues/141",
)
def resumed_after_the_cosine_has_ended(broken):
    x, y = batch()

    def start(epochs, state=None):
        model = Net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda t: 0.5 * (1 + np.cos(np.pi * min(t / epochs, 1.0)))
        )
        if state:
            for part, saved in zip((model, optimizer, schedule), state, strict=True):
                part.load_state_dict(saved)
        return model, optimizer, schedule

    def epoch(model, optimizer, schedule):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()  # fault
        schedule.step()
        return loss

    first = start(3)
    for _ in range(3 if broken else 1):
        epoch(*first)
    again = start(3, [part.state_dict() for part in first])
    return Program(lambda: epoch(*again), again[0], again[1], 2)


@fault(
    SET,
    "frozen",
    "step __init__ AdamW add_param_group",
    "norm.weight",
    "karpathy/minGPT, configure_optimizers: what its assertion of complete groups is for",
    building=True,
)
def norm_weight_in_no_group(broken):
    model, (x, y) = Net(), batch()
    named = dict(model.named_parameters())
    decay = [p for p in named.values() if p.ndim >= 2]
    plain = [p for n, p in named.items() if p.ndim < 2 and (n.endswith("bias") or not broken)]
    optimizer = torch.optim.AdamW(  # fault
        [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],  # fault
        lr=1e-3,  # fault
    )  # fault

    def step():
        model.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(SET, "severed frozen dead", "zero_grad", ALL, GH + "patrickloeber/pytorchTutorial/issues/19")
def accumulated_gradients_cleared_before_the_step(broken):
    model, (x, y) = Net(), batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        for number, rows in enumerate(torch.arange(12).split(3)):
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model(x[rows]).float(), y[rows]) / 2
            loss.backward()
            if number % 2 == 1:
                if broken:
                    optimizer.zero_grad()  # fault
                optimizer.step()
                optimizer.zero_grad()
        return loss

    return Program(step, model, optimizer, 2)


@fault(SET, "nan", "div div_", ALL, GH + "ssg-research/WAFFLE/issues/6")
def federated_average_over_no_samples(broken):
    model, (x, y) = Net(), batch()
    shares = [x[:0], x[:0]] if broken else [x[:5], x[5:]]
    labels = [y[:0], y[:0]] if broken else [y[:5], y[5:]]

    def client(rows, targets):
        local = Net()
        local.load_state_dict(model.state_dict())
        optimizer = torch.optim.SGD(local.parameters(), lr=0.1)
        for _ in range(2 if len(rows) else 0):
            optimizer.zero_grad()
            F.cross_entropy(local(rows), targets).backward()
            optimizer.step()
        return local.state_dict()

    def step():
        with torch.no_grad():
            before = F.cross_entropy(model(x), y)
        states = [client(rows, targets) for rows, targets in zip(shares, labels, strict=True)]
        size = torch.tensor([float(len(rows)) for rows in shares])
        weight = size / size.sum()  # fault
        model.load_state_dict(
            {k: sum(w * s[k] for w, s in zip(weight, states, strict=True)) for k in states[0]}
        )
        return before

    return Program(step, model, (), 2)


@fault(
    SET,
    "nan",
    "var std var_mean add_ lerp_",
    "?",
    "Engstrom et al. 2020: running statistics of the observations, one environment",
)
def observation_statistics_of_one_environment(broken):
    class Agent(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.register_buffer("mean", torch.zeros(6))
            self.register_buffer("spread", torch.ones(6))
            self.net = Net()

        def look(self, x):
            with torch.no_grad():
                self.mean.lerp_(x.mean(0), 0.1)
                self.spread.lerp_(x.var(0, unbiased=broken), 0.1)  # fault

    agent, (x, y) = Agent(), batch(3)
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        policy = torch.distributions.Categorical(logits=agent.net((x - agent.mean).tanh()))
        loss = -(policy.log_prob(y) * torch.tensor([1.0, -0.5, 0.3])).mean()
        loss.backward()
        optimizer.step()
        agent.look(x[:1])
        return loss

    return Program(step, agent, optimizer, 2)
