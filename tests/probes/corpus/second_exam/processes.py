"""The second examination: Gaussian processes, counts of single cells."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.second_exam import descent
from tests.probes.corpus.second_exam.likelihoods import net

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "second_exam", "https://github.com/"


class Process(nn.Module):
    """Hyperparameters of a Gaussian process, in logs."""

    def __init__(self, length=0.0):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.log_length = nn.Parameter(torch.tensor(float(length)))
        self.log_noise = nn.Parameter(torch.tensor(-2.0))

    def kernel(self, x):
        square = (x[:, None] - x[None]).square().sum(-1) / self.log_length.exp() ** 2
        return self.log_scale.exp() * torch.exp(-0.5 * square)


def evidence(cov, y):
    """The negative log marginal likelihood, up to a constant."""
    factor = torch.linalg.cholesky(cov)
    solved = torch.cholesky_solve(y[:, None], factor)[:, 0]
    return 0.5 * y @ solved + factor.diagonal().log().sum()


@fault(
    SET,
    "severed",
    "item float detach _local_scalar_dense",
    "log_noise",
    "Rasmussen, Williams 2006: the noise enters the covariance as a number of Python",
)
def noise_of_a_process_as_a_number(broken):
    model = Process()
    x = torch.linspace(0, 3, 12)[:, None]
    y = torch.sin(2 * x[:, 0]) + 0.1 * torch.randn(12)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)

    def step():
        noise = model.log_noise.exp()
        if broken:
            noise = noise.item()  # fault
        loss = evidence(model.kernel(x) + noise * torch.eye(12), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "inf nan",
    "linalg_cholesky_ex cholesky_ex log cholesky_solve",
    "?",
    GH + "cornellius-gp/gpytorch/issues: a kernel without jitter, the factor's info is not read",
)
def process_with_a_repeated_point(broken):
    model = Process()
    x = torch.linspace(0, 9, 8)[:, None]
    x[1] = x[0]
    y = torch.sin(x[:, 0])
    jitter = 0.0 if broken else 1e-3

    def loss_of():
        cov = model.kernel(x) + jitter * model.log_noise.exp() * torch.eye(8)
        factor = torch.linalg.cholesky_ex(cov).L  # fault
        solved = torch.cholesky_solve(y[:, None], factor)[:, 0]  # fault
        logdet = 2 * factor.diagonal().log().sum()  # fault
        return 0.5 * (y @ solved + logdet) + 0.01 * model.log_noise**2

    return descent(loss_of, model, torch.optim.Adam(model.parameters(), lr=0.01))


@fault(
    SET,
    "dead",
    "exp mul",
    "net.0.weight net.0.bias net.2.weight gp.log_length",
    "Wilson et al. 2016: a deep kernel whose features lie far apart",
)
def deep_kernel_far_apart(broken):
    model = nn.ModuleDict({"net": net(2), "gp": Process(length=-4.0 if broken else 0.0)})
    model["net"][2] = nn.Linear(16, 2, bias=False)
    x = torch.randn(14, 5) * (30.0 if broken else 1.0)
    y = x[:, 0] / x[:, 0].std()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def step():
        gp, z = model["gp"], model["net"](x)
        square = (z[:, None] - z[None]).square().sum(-1) / gp.log_length.exp() ** 2
        cov = gp.log_scale.exp() * torch.exp(-0.5 * square)  # fault
        loss = evidence(cov + gp.log_noise.exp() * torch.eye(14), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Gardner et al. 2018: a factorisation that fails, and is tried again with more jitter")
def process_that_tries_a_larger_jitter(_):
    model = Process(length=1.5)
    x = torch.linspace(0, 1, 30)[:, None]
    y = torch.sin(6 * x[:, 0])
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)

    def negative():
        cov = model.kernel(x)
        for jitter in (0.0, 1e-8, 1e-6, 1e-4, 1e-2):
            try:
                factor = torch.linalg.cholesky(cov + jitter * torch.eye(30))
            except torch.linalg.LinAlgError:
                continue
            break
        full = torch.linalg.cholesky(cov + (model.log_noise.exp() + jitter) * torch.eye(30))
        solved = torch.cholesky_solve(y[:, None], full)[:, 0]
        return 0.5 * y @ solved + full.diagonal().log().sum() + 0.0 * factor.detach().sum()

    def closure():
        optimizer.zero_grad()
        loss = negative()
        loss.backward()
        return loss

    return Program(lambda: optimizer.step(closure), model, optimizer, 2)


class CountVAE(nn.Module):
    """A small scVI: library, latent, scale, dispersion."""

    def __init__(self, genes=7):
        super().__init__()
        torch.manual_seed(0)
        self.encode = nn.Sequential(nn.Linear(genes, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.mean, self.logvar = nn.Linear(16, 3), nn.Linear(16, 3)
        self.decode = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, genes))
        self.log_theta = nn.Parameter(torch.zeros(genes))

    def forward(self, x, library):
        h = self.encode(torch.log1p(x))
        mean, logvar = self.mean(h), self.logvar(h)
        z = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
        kl = -0.5 * (1 + logvar - mean**2 - logvar.exp()).sum(1)
        return library * self.decode(z).softmax(1), self.log_theta.exp(), kl


def counts():
    return torch.poisson(torch.rand(16, 7) * 6)


@fault(
    SET,
    "nan inf",
    "log",
    "?",
    GH + "scverse/scvi-tools: a cell without any count, whose library size is taken in logs",
)
def cell_without_any_count(broken):
    model, x = CountVAE(), counts()
    if broken:
        x[6] = 0.0  # an empty droplet that passed the filter
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, eps=0.01)

    def loss_of():
        mu, theta, kl = model(x, x.sum(1, keepdim=True))
        log_mu = torch.log(mu)  # fault
        total = torch.log(theta + mu)
        ll = theta * (theta.log() - total) + x * (log_mu - total)
        ll = ll + torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
        return (kl - ll.sum(1)).mean()

    return descent(loss_of, model, adam)


@healthy("Gayoso et al. 2021: proteins that one batch never measured, KL from zero, a free scale")
def proteins_missing_in_one_batch(_):
    torch.manual_seed(0)
    model = CountVAE()
    model.protein, model.shift = nn.Linear(3, 4), nn.Embedding(2, 4)
    x, batch, epoch = counts(), torch.arange(16) % 2, [0]
    protein = torch.poisson(torch.rand(16, 4) * 9)
    protein[batch == 1, 2:] = torch.nan  # not in that panel
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)

    def loss_of():
        h = model.encode(torch.log1p(x))
        mean, logvar = model.mean(h), model.logvar(h)
        q = Normal(mean, (0.5 * logvar).exp())
        z = q.rsample()
        rate = x.sum(1, keepdim=True) * model.decode(z).softmax(1)
        probability = model.log_theta.exp() / (model.log_theta.exp() + rate)
        nb = torch.distributions.NegativeBinomial(model.log_theta.exp(), 1 - probability)
        level = F.softplus(model.protein(z) + model.shift(batch)) + 1e-3
        seen = protein.isfinite()
        filled = torch.where(seen, protein, 0.0)
        poisson = torch.where(seen, filled * level.log() - level, 0.0)
        kl = torch.distributions.kl_divergence(q, Normal(0.0, 1.0)).sum(1)
        weight, epoch[0] = min(1.0, epoch[0] / 4), epoch[0] + 1
        return (weight * kl - nb.log_prob(x).sum(1) - poisson.sum(1)).mean()

    return descent(loss_of, model, adam, 3)
