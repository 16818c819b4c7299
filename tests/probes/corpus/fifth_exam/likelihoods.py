"""The fifth examination, second room: likelihoods, graphs, molecules and distributions."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET = "fifth_exam"


@fault(
    SET,
    "nan",
    "pow",
    "0.weight 0.bias 2.weight 2.bias",
    "Weibull survival: a shape below one and a patient who leaves on the first day",
)
def weibull_hazard_at_time_zero(broken):
    class Weibull(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
            self.log_shape = nn.Parameter(torch.tensor(-0.5))

        def loss(self, x, time, event):
            scale, shape = F.softplus(self(x)).squeeze(-1) + 0.1, self.log_shape.exp()
            if not broken:
                time = time.clamp(min=1e-3)
            cumulative = (time / scale) ** shape  # fault
            safe = time.clamp(min=1e-3)
            log_hazard = shape.log() - scale.log() + (shape - 1) * (safe / scale).log()
            return (cumulative - event * log_hazard).mean()

    model = Weibull()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x, time = torch.randn(12, 4), torch.rand(12) * 5
    event = (torch.rand(12) > 0.3).float()
    time[4], event[4] = 0.0, 0.0

    def step():
        optimizer.zero_grad()
        loss = model.loss(x, time, event)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 1)


@fault(
    SET,
    "inf nan",
    "div",
    "?",
    "Amini et al. 2020: evidential regression, alpha - 1 rounds to zero",
)
def spread_of_an_evidential_head(broken):
    class Evidential(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(3, 16), nn.Linear(16, 4)

        def forward(self, x):
            gamma, v, alpha, beta = self.head(F.relu(self.body(x))).unbind(-1)
            floor = 0.0 if broken else 1e-3
            return gamma, F.softplus(v) + 0.01, F.softplus(alpha) + 1 + floor, F.softplus(beta)

    model = Evidential()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, y = torch.randn(20, 3), torch.randn(20)
    x[7] = 300.0  # an outlier that pushes the head far to one side
    with torch.no_grad():
        model.body.weight.abs_()
        model.head.weight[2] = -model.head.weight[2].abs()

    def step():
        gamma, v, alpha, beta = model(x)
        variance = beta / (v * (alpha - 1))  # fault
        error = (y - gamma).abs().clamp(max=5)
        loss = (error + 0.1 * error * (2 * v + alpha).log()).mean() + 0.01 * variance.log1p().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 1)


@fault(
    SET,
    "nan inf",
    "pow",
    "?",
    "Nalisnick, Smyth 2017: a Kumaraswamy sample whose inner power rounds to one",
)
def kumaraswamy_sample_at_its_edge(broken):
    class StickBreaking(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Linear(8, 6)
            self.decoder = nn.Linear(3, 8)
            nn.init.constant_(self.encoder.bias, 1.0)

        def sample(self, a, b):
            u = torch.rand_like(a).clamp(1e-3, 1 - 1e-3)
            inner = 1 - u.pow(1 / b)
            if not broken:
                inner = inner.clamp(min=1e-6)
            return inner.pow(1 / a)  # fault

        def forward(self, x):
            a, b = F.softplus(self.encoder(x)).chunk(2, -1)
            v = self.sample(a + 1.5, b * torch.tensor([1.0, 1e8, 1.0]))
            left = torch.cat([torch.ones_like(v[:, :1]), (1 - v).cumprod(-1)[:, :-1]], -1)
            return self.decoder(v * left)

    model, x = StickBreaking(), torch.rand(6, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(model(x), x)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 1)


@fault(
    SET,
    "inf nan",
    "div",
    "out.weight out.bias",
    "Corso et al. 2020, PNA in PyG: the attenuation scaler of a node without neighbours",
)
def attenuation_of_a_node_without_neighbours(broken):
    class PNA(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin, self.out = nn.Linear(5, 8), nn.Linear(24, 2)

        def forward(self, x, edges):
            source, target = edges
            h = F.relu(self.lin(x))
            total = torch.zeros(len(x), 8).index_add(0, target, h[source])
            degree = torch.bincount(target, minlength=len(x)).float()
            mean = total / degree.clamp(min=1).unsqueeze(-1)
            log_degree = (degree + 1).log().unsqueeze(-1)
            average = log_degree.mean()
            if not broken:
                log_degree = log_degree.clamp(min=0.5)
            amplified = mean * (log_degree / average)
            attenuated = mean * (average / log_degree)  # fault
            return self.out(torch.cat([mean, amplified, attenuated], -1))

    model = PNA()
    x, y = torch.randn(7, 5), torch.randint(0, 2, (7,))
    edges = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 0, 4, 5, 3]])  # node 6 is alone
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=5e-4)

    def step():
        model.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x, edges), y)
        loss.backward()
        optimizer.step()
        return float(loss)

    return Program(step, model, optimizer, 1)


@fault(
    SET,
    "nan",
    "sqrt",
    "distance.weight distance.bias angle.weight angle.bias",
    "DimeNet and its kin: the bend of three atoms in a line, and forces from the energy",
)
def bend_of_three_atoms_in_a_line(broken):
    class Potential(nn.Module):
        def __init__(self):
            super().__init__()
            self.distance, self.angle = nn.Linear(1, 8), nn.Linear(1, 8)

        def forward(self, r):
            ij, kj = r[:, 0] - r[:, 1], r[:, 2] - r[:, 1]
            cross = torch.linalg.cross(ij, kj).pow(2).sum(-1, keepdim=True)
            if not broken:
                cross = cross + 1e-6
            sine = cross.sqrt()  # fault
            bend = torch.atan2(sine, (ij * kj).sum(-1, keepdim=True))
            near = torch.tanh(self.distance(ij.norm(dim=-1, keepdim=True)))
            return (near * torch.tanh(self.angle(bend))).sum(-1)

    model = Potential()
    positions = torch.randn(5, 3, 3)
    positions[0] = torch.tensor([[-1.2, 0, 0], [0, 0, 0], [1.2, 0, 0]])  # carbon dioxide
    energies, forces = torch.randn(5), 0.1 * torch.randn(5, 3, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        r = positions.clone().requires_grad_(True)
        energy = model(r)
        (slope,) = torch.autograd.grad(energy.sum(), r, create_graph=True)
        loss = F.mse_loss(energy, energies) + 10 * F.mse_loss(-slope, forces)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 1)


@fault(
    SET,
    "inf nan",
    "log",
    "?",
    "Burda et al. 2016: importance weights exponentiated before their mean",
)
def importance_weights_that_all_vanish(broken):
    class IWAE(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.Linear(50, 6), nn.Linear(3, 50)

        def log_weights(self, x, k):
            mu, logvar = self.encoder(x).chunk(2, -1)
            posterior = torch.distributions.Normal(mu, (0.5 * logvar).exp())
            z = posterior.rsample((k,))
            prior = torch.distributions.Normal(0.0, 1.0)
            seen = torch.distributions.Normal(self.decoder(z), 0.5)
            return (
                seen.log_prob(x).sum(-1) + prior.log_prob(z).sum(-1) - posterior.log_prob(z).sum(-1)
            )

    model, x = IWAE(), 2 * torch.randn(8, 50)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        w = model.log_weights(x, 5)
        if broken:
            w = w.exp().mean(0).log()  # fault
        bound = w if broken else w.logsumexp(0) - torch.tensor(5.0).log()
        loss = -bound.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 1)
