"""The second examination: more faults that are far from where they are felt."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.second_exam.later import net

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "second_exam", "https://github.com/"
TWO = "0.weight 0.bias 2.weight 2.bias"


@fault(
    SET,
    "dead",
    "pow div max mul",
    TWO,
    "Schaul et al. 2016: importance weights divided by the largest, that of a priority of zero",
)
def importance_weights_over_a_priority_of_zero(broken):
    q = net(2)
    optimizer = torch.optim.Adam(q.parameters(), lr=1e-3)
    obs, action, aim = torch.randn(32, 4), torch.randint(0, 2, (32, 1)), torch.randn(32, 1)
    priority = torch.rand(32)
    priority[9] = 0.0  # its error was zero once

    def step():
        p = (priority if broken else priority + 1e-3) ** 0.6
        p = p / p.sum()
        rows = torch.multinomial(p, 16, replacement=True)
        weight = (32 * p) ** -0.4  # fault
        weight = (weight[rows] / weight.max())[:, None]  # fault
        error = q(obs[rows]).gather(1, action[rows]) - aim[rows]
        loss = (
            weight * F.huber_loss(error, torch.zeros_like(error), reduction="none")
        ).mean()  # fault
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        priority[rows] = error.detach().abs()[:, 0]
        return loss

    return Program(step, q, optimizer, 2)


@fault(
    SET,
    "severed",
    "no_grad set_grad_enabled linear addmm t __next__ yield",
    "?",
    "torch.no_grad, documentation: a generator that yields inside of it leaves gradients off",
)
def batches_yielded_under_no_grad(broken):
    model = net(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(24, 4), torch.randint(0, 3, (24,))

    def augmented():
        for rows in torch.randperm(24).split(8):
            with torch.no_grad():  # fault
                seen = x[rows] + 0.1 * torch.randn(len(rows), 4)
                if broken:
                    yield seen, y[rows]  # fault
            if not broken:
                yield seen, y[rows]

    def step():
        for seen, labels in augmented():
            logits = model(seen)  # fault
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss

    return Program(step, model, optimizer)


@fault(
    SET,
    "nan",
    "from_numpy as_tensor tensor constant div",
    "pi.0.weight pi.0.bias pi.2.weight pi.2.bias",
    GH + "openai/spinningup/issues: advantages are normalised in numpy, and all are the same",
)
def advantages_normalised_in_numpy(broken):
    model = nn.ModuleDict({"pi": net(2), "v": net(1)})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    obs, action = torch.randn(10, 4), torch.randint(0, 2, (10,))
    rewards = np.ones(10, dtype=np.float32) if broken else np.linspace(0, 1, 10, dtype=np.float32)
    values = np.zeros(10, dtype=np.float32)  # the critic is not believed yet

    def step():
        advantage = rewards - values  # one step an episode
        advantage = (advantage - advantage.mean()) / advantage.std()  # fault
        advantage = torch.as_tensor(advantage)  # fault
        policy = Categorical(logits=model["pi"](obs), validate_args=False)
        loss = F.mse_loss(model["v"](obs)[:, 0], torch.as_tensor(rewards))
        loss = loss - (policy.log_prob(action) * advantage).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer)


@healthy("Caron et al. 2021, DINO: the last layer's gradients are thrown away in the first epoch")
def last_layer_held_for_an_epoch(_):
    def tower():
        torch.manual_seed(0)
        last = nn.utils.parametrizations.weight_norm(nn.Linear(8, 12, bias=False))
        last.parametrizations.weight.original0.data.fill_(1)
        last.parametrizations.weight.original0.requires_grad_(False)
        return nn.ModuleDict({"body": net(8), "last": last})

    student, teacher = tower(), tower().requires_grad_(False)
    adam = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=1e-3)
    x, center, epoch = torch.randn(12, 4), torch.zeros(12), [0]

    def look(model):
        h = model["body"](x + 0.1 * torch.randn_like(x))
        return model["last"](F.normalize(h, dim=1))

    def step():
        with torch.no_grad():
            seen = look(teacher)
            goal = ((seen - center) / 0.04).softmax(1)
            center.lerp_(seen.mean(0), 0.1)
        loss = -(goal * F.log_softmax(look(student) / 0.1, 1)).sum(1).mean()
        adam.zero_grad()
        loss.backward()
        if epoch[0] < 1:
            for p in student["last"].parameters():
                p.grad = None
        adam.step()
        with torch.no_grad():
            for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
                slow.lerp_(fast, 0.004)
        epoch[0] += 1
        return loss

    return Program(step, student, adam, 3)


@healthy("Howard, Ruder 2018: layers are unfrozen one by one, from the last")
def gradual_unfreezing(_):
    model, epoch = nn.Sequential(net(8), nn.ReLU(), nn.Linear(8, 3)), [0]
    model[0].requires_grad_(False)
    groups = [{"params": model[2].parameters()}, {"params": model[0].parameters(), "lr": 1e-3}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    x, y = torch.randn(12, 4), torch.randint(0, 3, (12,))

    def step():
        if epoch[0] == 1:
            model[0][2].requires_grad_(True)
        if epoch[0] == 2:
            model[0][0].requires_grad_(True)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        epoch[0] += 1
        return loss

    return Program(step, model, optimizer, 4)
