"""The fifth examination, tenth room: healthy likelihoods, agents and sparse codes."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy


@healthy("Osband et al. 2016: every head sees its own bootstrap of the batch")
def bootstrapped_heads(_):
    class Ensemble(nn.Module):
        def __init__(self, k=4):
            super().__init__()
            self.body = nn.Linear(5, 12)
            self.heads = nn.ModuleList(nn.Linear(12, 2) for _ in range(k))
            self.body.weight.register_hook(lambda g: g / k)
            self.body.bias.register_hook(lambda g: g / k)

        def forward(self, x):
            h = torch.relu(self.body(x))
            return torch.stack([head(h) for head in self.heads], 1)

    model, x, y = Ensemble(), torch.randn(20, 5), torch.randn(20)
    actions, mask = torch.randint(0, 2, (20,)), torch.bernoulli(torch.full((20, 4), 0.5))
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, centered=True)

    def step():
        q = model(x).gather(-1, actions.view(-1, 1, 1).expand(-1, 4, 1)).squeeze(-1)
        loss = (mask * (q - y[:, None]).square()).sum() / mask.sum().clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 2)


@healthy("PPO that leaves its epochs when the divergence is too large")
def policy_epochs_that_stop_early(_):
    class Agent(nn.Module):
        def __init__(self):
            super().__init__()
            self.actor = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
            self.log_std = nn.Parameter(torch.zeros(2))
            self.critic = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))

        def policy(self, s):
            return torch.distributions.Normal(self.actor(s), self.log_std.exp())

    agent, s = Agent(), torch.randn(32, 4)
    optimizer = torch.optim.Adam(agent.parameters(), lr=3e-2, eps=1e-5)

    def step():
        with torch.no_grad():
            a = agent.policy(s).sample()
            old, value = agent.policy(s).log_prob(a).sum(-1), agent.critic(s).squeeze(-1)
            returns = -a.square().sum(-1)
            adv = returns - value
            adv = (adv - adv.mean()) / (adv.std() + 1e-8)
        for _ in range(10):
            pi = agent.policy(s)
            log_ratio = pi.log_prob(a).sum(-1) - old
            if ((log_ratio.exp() - 1) - log_ratio).mean().item() > 0.03:
                break
            ratio = log_ratio.exp()
            gain = torch.min(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean()
            error = F.mse_loss(agent.critic(s).squeeze(-1), returns)
            loss = -gain + 0.5 * error - 0.01 * pi.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()
        return loss.item()

    return Program(step, agent, optimizer, 2)


@healthy("Bishop 1994: a mixture density network, one of its components is pruned to -inf")
def mixture_with_a_pruned_component(_):
    class Mixture(nn.Module):
        def __init__(self, k=5):
            super().__init__()
            self.body, self.out = nn.Linear(3, 16), nn.Linear(16, 3 * k)
            self.register_buffer("alive", torch.tensor([True, True, False, True, True]))

        def forward(self, x, y):
            logits, mu, log_sigma = self.out(torch.tanh(self.body(x))).chunk(3, -1)
            logits = logits.masked_fill(~self.alive, -math.inf)
            sigma = log_sigma.clamp(-7, 7).exp()
            part = -0.5 * ((y - mu) / sigma) ** 2 - sigma.log() - 0.5 * math.log(2 * math.pi)
            return -torch.logsumexp(logits.log_softmax(-1) + part, -1).mean()

    model, x, y = Mixture(), torch.randn(24, 3), torch.randn(24, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        loss = model(x, y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Graves 2012: the lattice of a transducer by hand, its borders are -inf")
def transducer_lattice_by_hand(_):
    class Transducer(nn.Module):
        def __init__(self):
            super().__init__()
            self.audio, self.text = nn.Linear(4, 8), nn.Embedding(6, 8)
            self.joint = nn.Linear(8, 6)

        def forward(self, x, y):
            pad = F.pad(y, (1, 0))
            h = torch.tanh(self.audio(x)[:, None] + self.text(pad)[None])
            log_p = self.joint(h).log_softmax(-1)  # time, label, symbol
            blank, emit = log_p[..., 0], log_p[:, :-1].gather(-1, y.expand(len(x), -1)[..., None])
            minus = torch.full((), -math.inf)
            previous = [minus] * (len(y) + 1)
            for t in range(len(x)):
                row = []
                for u in range(len(y) + 1):
                    if t == 0 and u == 0:
                        row.append(torch.zeros(()))
                        continue
                    stay = previous[u] + blank[t - 1, u] if t else minus
                    move = row[u - 1] + emit[t, u - 1, 0] if u else minus
                    row.append(torch.logaddexp(stay, move))
                previous = row
            return -(previous[-1] + blank[-1, -1])

    model, x, y = Transducer(), torch.randn(5, 4), torch.tensor([2, 4, 1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        loss = model(x, y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 2)


@healthy("Gao et al. 2024: a sparse autoencoder of the k largest codes with unit dictionary rows")
def sparse_autoencoder_of_the_largest(_):
    class SAE(nn.Module):
        def __init__(self, d=6, n=24, k=4):
            super().__init__()
            self.k, self.before = k, nn.Parameter(torch.zeros(d))
            self.encoder, self.decoder = nn.Linear(d, n), nn.Linear(n, d, bias=False)
            self.decoder.weight.data = F.normalize(self.encoder.weight.data.T, dim=0)
            self.register_buffer("silent", torch.zeros(n))

        def forward(self, x):
            z = F.relu(self.encoder(x - self.before))
            values, places = z.topk(self.k, -1)
            code = torch.zeros_like(z).scatter(-1, places, values)
            self.silent.add_(1).masked_fill_((code > 0).any(0), 0)
            return self.decoder(code) + self.before

    model, x = SAE(), torch.randn(32, 6)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        loss = F.mse_loss(model(x), x)
        optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            w = model.decoder.weight
            w.grad -= (w.grad * w).sum(0) * w  # only along the sphere
        optimizer.step()
        model.decoder.weight.data = F.normalize(model.decoder.weight.data, dim=0)
        return loss.item()

    return Program(step, model, optimizer, 3)


@healthy("Hensman et al. 2015: a covariance kept as a lower triangle inside a full matrix")
def variational_covariance_by_its_triangle(_):
    class SVGP(nn.Module):
        def __init__(self, m=6):
            super().__init__()
            self.inducing = nn.Parameter(torch.linspace(-2, 2, m)[:, None])
            self.mean, self.root = nn.Parameter(torch.zeros(m)), nn.Parameter(torch.eye(m))
            self.raw = nn.Parameter(torch.zeros(3))

        def forward(self, x, y):
            length, scale, noise = F.softplus(self.raw) + 1e-3

            def kernel(a, b):
                return scale * torch.exp(-0.5 * ((a - b.T) / length) ** 2)

            m = len(self.mean)
            top = torch.linalg.cholesky(kernel(self.inducing, self.inducing) + 1e-3 * torch.eye(m))
            a = torch.linalg.solve_triangular(top, kernel(self.inducing, x), upper=False)
            low = self.root.tril()
            mean = a.T @ self.mean
            var = scale - a.square().sum(0) + (low.T @ a).square().sum(0)
            fit = -0.5 * (((y - mean) ** 2 + var) / noise + noise.log()).sum()
            kl = 0.5 * (low.square().sum() + self.mean.square().sum() - m)
            return kl - low.diagonal().abs().log().sum() - fit

    model, x = SVGP(), torch.randn(30, 1)
    y, optimizer = torch.sin(2 * x[:, 0]), torch.optim.Adam(model.parameters(), lr=1e-2)

    def step():
        optimizer.zero_grad()
        loss = model(x, y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)


@healthy("Dabney et al. 2018: quantiles of returns, with a target network")
def quantiles_of_returns(_):
    online, target = nn.Linear(4, 2 * 5), nn.Linear(4, 2 * 5).requires_grad_(False)
    target.load_state_dict(online.state_dict())
    optimizer = torch.optim.Adam(online.parameters(), lr=1e-3, eps=0.01 / 32)
    s, s2, r = torch.randn(16, 4), torch.randn(16, 4), torch.randn(16)
    a, done = torch.randint(0, 2, (16,)), (torch.rand(16) > 0.7).float()
    tau = (torch.arange(5) + 0.5) / 5
    rows = torch.arange(16)

    def step():
        with torch.no_grad():
            after = target(s2).view(16, 2, 5)
            best = after.mean(-1).argmax(-1)
            goal = r[:, None] + 0.99 * (1 - done)[:, None] * after[rows, best]
        theta = online(s).view(16, 2, 5)[rows, a]
        u = goal[:, None] - theta[..., None]
        weight = (tau.view(1, 5, 1) - (u.detach() < 0).float()).abs()
        huber = F.huber_loss(theta[..., None].expand_as(u), goal[:, None].expand_as(u), "none")
        loss = (weight * huber).sum(1).mean()
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, online, optimizer, 2)
