"""The fourth unseen set, controls: healthy programs that look ill."""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.rnn import pack_padded_sequence

from tests.probes.corpus.built.births import GH
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
healthy = corpus.healthy


@healthy(GH + "pyg-team/pytorch_geometric/issues/61")
def degree_of_a_node_without_edges(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"gate": nn.Linear(1, 1), "read": nn.Linear(3, 1)})
    x, length = torch.rand(4, 3), torch.rand(3, 1)
    source, target = torch.tensor([0, 1, 2]), torch.tensor([1, 0, 0])

    def step():
        weight = torch.sigmoid(model.gate(length))[:, 0]
        degree = torch.zeros(4).index_add(0, target, weight)
        scale = degree.pow(-0.5)
        scale = scale.masked_fill(scale == float("inf"), 0.0)
        value = scale[target] * weight
        hidden = torch.zeros(4, 3).index_add(0, target, value[:, None] * x[source])
        return (model.read(hidden) - 1).square().mean()

    return Program(step, model)


@healthy("van den Oord et al. 2017: codes as moving averages, beside a straight-through sum")
def codebook_by_moving_averages(_):
    class Codes(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.encode, self.decode = nn.Linear(4, 2), nn.Linear(2, 4)
            self.register_buffer("code", torch.randn(5, 2))
            self.register_buffer("size", torch.ones(5))
            self.register_buffer("total", self.code.clone())

        def forward(self, x):
            z = self.encode(x)
            chosen = F.one_hot(torch.cdist(z, self.code).argmin(1), 5).float()
            with torch.no_grad():
                self.size.mul_(0.9).add_(chosen.sum(0), alpha=0.1)
                self.total.mul_(0.9).add_(chosen.t() @ z, alpha=0.1)
                self.code.copy_(self.total / (self.size[:, None] + 1e-5))
            code = chosen @ self.code
            loss = 0.25 * F.mse_loss(z, code.detach())
            return self.decode(z + (code - z).detach()), loss

    model, x = Codes(), torch.rand(6, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def step():
        optimizer.zero_grad()
        out, loss = model(x)
        loss = loss + F.mse_loss(out, x)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Arjovsky et al. 2017: the generator moves in every second step only")
def critic_that_trains_more_often(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"generator": nn.Linear(3, 2), "critic": nn.Linear(2, 1)})
    first = torch.optim.RMSprop(model.generator.parameters(), lr=1e-2)
    second = torch.optim.RMSprop(model.critic.parameters(), lr=1e-2)
    real, noise, count = torch.rand(6, 2), torch.rand(6, 3), [0]

    def step():
        with torch.no_grad():
            fake = model.generator(noise)
        second.zero_grad()
        loss = model.critic(fake).mean() - model.critic(real).square().mean()
        loss.backward()
        second.step()
        with torch.no_grad():
            for p in model.critic.parameters():
                p.clamp_(-0.1, 0.1)
        count[0] += 1
        if count[0] % 2 == 0:
            first.zero_grad()
            (-model.critic(model.generator(noise)).mean()).backward()
            first.step()
        return loss

    return Program(step, model, (first, second), 2)


@healthy("Han et al. 2015, torch.nn.utils.prune: weights that are meant to be zero")
def pruned_weights(_):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1)), torch.rand(6, 4)
    prune.random_unstructured(model[0], "weight", amount=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Zhang et al. 2023: a copy of a block between two convolutions of zeros")
def control_branch_between_zero_convolutions(_):
    torch.manual_seed(0)
    block = nn.Conv2d(2, 2, 3, padding=1)
    parts = {"block": block, "copy": copy.deepcopy(block)}
    model = nn.ModuleDict({**parts, "enter": nn.Conv2d(2, 2, 1), "leave": nn.Conv2d(2, 2, 1)})
    model.block.requires_grad_(False)
    for part in (model.enter, model.leave):
        nn.init.zeros_(part.weight)
        nn.init.zeros_(part.bias)
    x, hint = torch.rand(2, 2, 5, 5), torch.rand(2, 2, 5, 5)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.5)

    def step():
        optimizer.zero_grad()
        out = model.block(x) + model.leave(model.copy(x + model.enter(hint)))
        loss = (out - 1).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)


@healthy("Haarnoja et al. 2018: two critics, their slow copies, a temperature that is trained")
def soft_actor_critic(_):
    torch.manual_seed(0)
    parts = {"actor": nn.Linear(4, 4), "critic": nn.Linear(6, 2)}
    model = nn.ModuleDict({**parts, "slow": nn.Linear(6, 2)})
    model.slow.load_state_dict(model.critic.state_dict())
    model.slow.requires_grad_(False)
    model.log_heat = nn.Parameter(torch.tensor(0.0))
    state, done = torch.rand(6, 4), torch.tensor([0.0, 0, 1, 0, 0, 1])
    groups = (model.actor.parameters(), model.critic.parameters(), [model.log_heat])
    optimizers = tuple(torch.optim.Adam(group, lr=1e-2) for group in groups)

    def act(where):
        mean, log_std = model.actor(where).chunk(2, 1)
        policy = torch.distributions.Normal(mean, log_std.clamp(-5, 2).exp())
        raw = policy.rsample()
        flat = 2 * (0.6931 - raw - F.softplus(-2 * raw))
        return torch.tanh(raw), (policy.log_prob(raw) - flat).sum(1)

    def improve(optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def step():
        with torch.no_grad():
            action, chance = act(state)
            best = model.slow(torch.cat([state, action], 1)).min(1).values
            goal = 1 + 0.9 * (1 - done) * (best - model.log_heat.exp() * chance)
        taken = torch.cat([state, action], 1)
        improve(optimizers[1], F.mse_loss(model.critic(taken), goal[:, None].expand(-1, 2)))
        action, chance = act(state)
        worth = model.critic(torch.cat([state, action], 1)).min(1).values
        improve(optimizers[0], (model.log_heat.exp().detach() * chance - worth).mean())
        improve(optimizers[2], -(model.log_heat * (chance - 2).detach()).mean())
        with torch.no_grad():
            for slow, fast in zip(model.slow.parameters(), model.critic.parameters(), strict=True):
                slow.lerp_(fast, 0.01)

    return Program(step, model, optimizers, 2)


@healthy("Grill et al. 2020: a teacher that no gradient reaches, a predictor, no negatives")
def bootstrap_your_own_latent(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"net": nn.Linear(4, 3), "guess": nn.Linear(3, 3)})
    model["teacher"] = copy.deepcopy(model.net)
    for p in model.teacher.parameters():
        p.requires_grad = False
    x, optimizer = torch.rand(6, 4), torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        one, two = x + 0.1 * torch.randn(6, 4), x + 0.1 * torch.randn(6, 4)
        seen = F.normalize(model.guess(model.net(one)), dim=1)
        loss = 2 - 2 * (seen * F.normalize(model.teacher(two), dim=1).detach()).sum(1).mean()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(model.teacher.parameters(), model.net.parameters(), strict=True):
                slow.mul_(0.99).add_(fast, alpha=0.01)
        return loss

    return Program(step, model, optimizer, 2)


@healthy("torch.nn.utils.rnn: sentences of different lengths, words that are padding")
def packed_sentences(_):
    torch.manual_seed(0)
    parts = {"words": nn.Embedding(7, 3, padding_idx=0), "net": nn.LSTM(3, 4, batch_first=True)}
    model = nn.ModuleDict({**parts, "read": nn.Linear(4, 7)})
    text = torch.tensor([[3, 1, 5, 2], [4, 6, 0, 0], [2, 0, 0, 0]])

    def step():
        packed = pack_padded_sequence(model.words(text), torch.tensor([4, 2, 1]), batch_first=True)
        _, (last, _) = model.net(packed)
        return F.cross_entropy(model.read(last[0]), torch.tensor([0, 5, -100]), ignore_index=-100)

    return Program(step, model)
