"""The second examination, ninth room: scans, durations, hypernetworks, constraints."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.second_exam import descent

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "second_exam", "https://github.com/"


@fault(
    SET,
    "severed",
    "detach",
    "first",
    "Kapturowski et al. 2019: the state is cut before every step, the learned first one too",
)
def learned_first_state_cut_at_every_step(broken):
    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first = nn.Parameter(torch.zeros(1, 8))
            self.cell, self.out = nn.GRUCell(3, 8), nn.Linear(8, 2)

        def forward(self, obs):
            h, logits = self.first.expand(len(obs), -1), []
            for t in range(obs.shape[1]):
                if broken or t > 0:
                    h = h.detach()  # fault
                h = self.cell(obs[:, t], h)
                logits.append(self.out(h))
            return torch.stack(logits, 1)

    model, obs = Policy(), torch.randn(6, 4, 3)
    action, gain = torch.randint(0, 2, (6, 4)), torch.randn(6, 4)

    def loss_of():
        return -(Categorical(logits=model(obs)).log_prob(action) * gain).mean()

    return descent(loss_of, model, torch.optim.Adam(model.parameters(), lr=1e-3), 2)


@fault(
    SET,
    "severed",
    "copy_ data detach",
    "hyper.0.weight hyper.0.bias hyper.2.weight hyper.2.bias",
    "Ha et al. 2017: the weights that a hypernetwork made are copied into a layer",
)
def weights_of_a_hypernetwork_copied_in(broken):
    class Generated(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.hyper = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 32))
            self.main = nn.Linear(4, 8, bias=False).requires_grad_(False)
            self.head = nn.Linear(8, 2)

        def forward(self, x, task):
            made = self.hyper(task).view(8, 4)
            if broken:
                self.main.weight.data.copy_(made)  # fault
                made = self.main.weight
            return self.head(torch.relu(F.linear(x, made)))

    model, tasks = Generated(), torch.eye(3)
    adam = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    x, y = torch.randn(3, 10, 4), torch.randint(0, 2, (3, 10))

    def loss_of():
        return sum(F.cross_entropy(model(x[k], tasks[k]), y[k]) for k in range(3))

    return descent(loss_of, model, adam, 2)


@fault(
    SET,
    "severed",
    "long to round int _to_copy repeat_interleave",
    "length.weight length.bias",
    "Ren et al. 2019: durations that only say how often a phoneme is repeated",
)
def durations_that_only_repeat(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"embed": nn.Embedding(9, 6), "length": nn.Linear(6, 1), "out": nn.Linear(6, 4)}
    )
    phonemes, true = torch.tensor([1, 4, 2, 7]), torch.tensor([2, 3, 1, 2])
    mel = torch.randn(8, 4)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        h = model["embed"](phonemes)
        log_length = model["length"](h)[:, 0]
        times = (log_length.exp() + 1).round().long().clamp(1, 9)  # fault
        frames = h.repeat_interleave(times if broken else true, 0)[:8]
        loss = F.l1_loss(model["out"](frames), mel[: len(frames)])
        if not broken:
            loss = loss + F.mse_loss(log_length, true.float().log())
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss

    return Program(step, model, adam, 2)


@fault(
    SET,
    "nan inf",
    "log",
    "?",
    GH + "openai/pixel-cnn: a discretised logistic far from its pixel, chosen by torch.where",
)
def discretised_logistic_far_from_its_pixel(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ELU(), nn.Conv2d(8, 2, 3, padding=1))
    with torch.no_grad():
        model[2].bias.copy_(torch.tensor([0.0, -5.0]))
    x = torch.randint(0, 256, (2, 1, 6, 6)) / 127.5 - 1
    optimizer = torch.optim.Adamax(model.parameters(), lr=2e-3)

    def step():
        mean, log_scale = model(x.roll(1, -1)).chunk(2, 1)
        centered, inverse = x - mean, torch.exp(-log_scale.clamp(min=-7))
        mass = torch.sigmoid(inverse * (centered + 1 / 255))
        mass = mass - torch.sigmoid(inverse * (centered - 1 / 255))
        middle = inverse * centered
        density = middle - log_scale - 2 * F.softplus(middle) - math.log(127.5)
        sure = mass if broken else mass.clamp(min=1e-12)
        log_p = torch.where(mass > 1e-5, torch.log(sure), density)  # fault
        optimizer.zero_grad()
        loss = -log_p.mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer)


class Gated(nn.Module):
    """A minimal recurrence whose gate does not see the state."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.gate, self.new, self.out = nn.Linear(3, 8), nn.Linear(3, 8), nn.Linear(8, 2)


@fault(
    SET,
    "nan inf",
    "div",
    "?",
    "Martin, Cundy 2018; Feng et al. 2024: a scan that divides by the product of all decays",
)
def scan_that_divides_by_its_decays(broken):
    class Scan(Gated):
        def forward(self, x):
            keep = torch.sigmoid(self.gate(x))
            fresh = (1 - keep) * self.new(x)
            product = keep.cumprod(1)
            h = product * (fresh / product).cumsum(1)  # fault
            return self.out(h[:, -1])

    model, n = Scan(), 240 if broken else 12
    x, y = torch.randn(4, n, 3), torch.randint(0, 2, (4,))
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    return descent(lambda: F.cross_entropy(model(x), y), model, adam)


@healthy("Feng et al. 2024, minGRU: a scan in log space, from a state of zero whose log is -inf")
def scan_in_log_space(_):
    class Scan(Gated):
        def forward(self, x):
            k = self.gate(x)
            v = self.new(x)
            log_new = torch.where(v >= 0, (F.relu(v) + 0.5).log(), -F.softplus(-v))
            values = torch.cat(
                [torch.full((len(x), 1, 8), -torch.inf), F.logsigmoid(-k) + log_new], 1
            )
            kept = F.pad(F.logsigmoid(k).cumsum(1), (0, 0, 1, 0))
            log_h = kept + (values - kept)[:, 1:].logcumsumexp(1)[:, -1:]
            return self.out(log_h[:, -1].exp())

    model = Scan()
    x, y = torch.randn(4, 60, 3), torch.randint(0, 2, (4,))
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    return descent(lambda: F.cross_entropy(model(x), y), model, adam, 2)


@healthy(
    "Ren et al. 2021: durations from a stopped encoder, their own loss, silent phonemes of none"
)
def durations_with_their_own_loss(_):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"embed": nn.Embedding(9, 6, 0), "length": nn.Linear(6, 1), "out": nn.Linear(6, 4)}
    )
    phonemes, true = torch.tensor([1, 4, 2, 7, 0]), torch.tensor([2, 3, 0, 2, 0])
    mel, mask = torch.randn(7, 4), phonemes != 0
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)

    def loss_of():
        h = model["embed"](phonemes)
        guess = model["length"](h.detach())[:, 0]
        aim = torch.log(true.float() + 1)
        own = ((guess - aim).square() * mask).sum() / mask.sum()
        return own + F.l1_loss(model["out"](h.repeat_interleave(true, 0)), mel)

    return descent(loss_of, model, adam, 2)


@healthy("Two backwards through one trunk: the graph is retained, the gradients add up")
def two_backwards_through_a_shared_trunk(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"trunk": nn.Linear(4, 8), "pi": nn.Linear(8, 3), "v": nn.Linear(8, 1)})
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    obs, returns = torch.randn(8, 4), torch.randn(8)

    def step():
        h = torch.tanh(model["trunk"](obs))
        policy, value = Categorical(logits=model["pi"](h)), model["v"](h)[:, 0]
        gain = (policy.log_prob(policy.sample()) * (returns - value).detach()).mean()
        optimizer.zero_grad()
        F.mse_loss(value, returns).backward(retain_graph=True)
        (-gain).backward()
        optimizer.step()

    return Program(step, model, optimizer, 2)


@healthy("Achiam et al. 2017; Ray et al. 2019: a multiplier that its constraint leaves at zero")
def multiplier_that_rests_at_zero(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"policy": nn.Linear(4, 3)})
    model.multiplier = nn.Parameter(torch.zeros(()))
    adam = torch.optim.Adam(model["policy"].parameters(), lr=1e-3)
    ascent = torch.optim.SGD([model.multiplier], lr=0.1)
    obs, reward = torch.randn(16, 4), torch.randn(16)

    def step():
        policy = Categorical(logits=model["policy"](obs))
        action = policy.sample()
        cost = (action == 2).float()
        weighed = reward - model.multiplier.detach() * cost
        loss = -(policy.log_prob(action) * weighed).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        ascent.zero_grad()
        (-model.multiplier * (cost.mean() - 0.9)).backward()
        ascent.step()
        with torch.no_grad():
            model.multiplier.clamp_(min=0)
        return loss

    return Program(step, model, [adam, ascent], 3)
