"""The fourth unseen set: losses with parts of their own that are trained, and whitening."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.built.births import ALL, GH, linear
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault = corpus.fault
SET = "unseen"


@fault(SET, "nan", "log", "", "Kendall, Gal, Cipolla 2018: sigma trained without a logarithm")
def noise_of_a_task_that_crosses_zero(broken):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body, self.sigma = nn.Linear(4, 2), nn.Parameter(torch.full((2,), 0.4))

        def forward(self, x, y):
            error = (self.body(x) - y).square().mean(0)
            if broken:
                return (error / (2 * self.sigma**2) + torch.log(self.sigma)).sum()  # fault
            scale = F.softplus(self.sigma)
            return (error / (2 * scale**2) + torch.log(scale)).sum()

    model, x, y = Net(), torch.rand(6, 4), torch.zeros(6, 2)
    y += model.body(x).detach() + 0.05
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)

    def step():
        optimizer.zero_grad()
        loss = model(x, y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(SET, "nan", "div", "weight bias shape", GH + "jonbarron/robust_loss_pytorch")
def robust_loss_at_its_special_shape(broken):
    model, x, y = linear(4, 1), torch.rand(6, 4), torch.rand(6, 1)
    model.shape = nn.Parameter(torch.tensor(2.0))

    def step():
        gap = (model.shape - 2).abs() + (0.0 if broken else 1e-3)
        square = (model(x) - y).square()
        inner = square / gap + 1  # fault
        return (gap / model.shape * (inner ** (model.shape / 2) - 1)).mean()

    return Program(step, model)


@fault(SET, "inf nan", "log", "?", "A zero-inflated mixture summed outside the log domain")
def mixture_of_two_tiny_likelihoods(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"rate": nn.Linear(4, 3), "zero": nn.Linear(4, 3)})
    x, y = torch.rand(5, 4), torch.tensor([[0.0, 2.0, 400.0]]).repeat(5, 1)

    def step():
        log_rate, gate = model.rate(x), model.zero(x)
        alive = y * log_rate - log_rate.exp() - torch.lgamma(y + 1) + F.logsigmoid(-gate)
        absent = F.logsigmoid(gate) - 1000.0 * (y > 0)
        if not broken:
            return -torch.logaddexp(absent, alive).sum(1).mean()
        return -torch.log(absent.exp() + alive.exp()).sum(1).mean()  # fault

    return Program(step, model)


@fault(SET, "nan inf", "rsqrt pow sqrt", ALL, "Huang et al. 2018: whitening with few samples")
def whitening_with_few_samples(broken):
    model, x = linear(6, 4), torch.rand(3, 6)

    def step():
        h = model(x)
        h = h - h.mean(0)
        values, vectors = torch.linalg.eigh(h.t() @ h / 3)
        values = values if broken else values + 1e-3
        white = h @ vectors @ torch.diag(values.rsqrt()) @ vectors.t()  # fault
        return (white - 1).square().mean()

    return Program(step, model)
