"""The examination, fifth room: graphs, flows, differential equations, Gaussian processes."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "exam", "https://github.com/"


def trained(model, loss_of, steps=1, lr=1e-3):
    """A program of plain Adam steps."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)

    def step():
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, steps)


@fault(
    SET,
    "nan inf",
    "pow",
    "one.weight two.weight two.bias",
    GH + "pyg-team/pytorch_geometric/issues/61",
)
def graph_convolution_over_negative_edges(broken):
    class GCN(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two = nn.Linear(4, 8, bias=False), nn.Linear(8, 3)

        def spread(self, h, row, col, weight):
            degree = torch.zeros(len(h)).index_add(0, row, weight.detach())
            if not broken:
                degree = degree.clamp(min=0)
            scale = degree.pow(-0.5)  # fault
            scale = scale.masked_fill(scale == float("inf"), 0.0)
            message = h[col] * (scale[row] * weight * scale[col])[:, None]
            return torch.zeros_like(h).index_add(0, row, message)

        def forward(self, x, row, col, weight):
            h = torch.relu(self.spread(self.one(x), row, col, weight))
            return self.spread(self.two(h), row, col, weight)

    model, x, y = GCN(), torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    row, col = torch.tensor([0, 0, 1, 1, 2, 3, 4]), torch.tensor([1, 2, 0, 2, 1, 4, 3])
    weight = torch.tensor([1.0, 0.5, 1.0, -1.5, 0.5, 1.0, 1.0])
    return trained(model, lambda: F.cross_entropy(model(x, row, col, weight)[:5], y[:5]))


@fault(
    SET,
    "inf nan",
    "exp",
    "query.weight key.weight value.weight out.weight out.bias",
    GH + "pyg-team/pytorch_geometric/issues/53",
)
def edge_softmax_without_its_maximum(broken):
    class GAT(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.query, self.key = (nn.Linear(4, 8, bias=False) for _ in range(2))
            self.value, self.out = nn.Linear(4, 8, bias=False), nn.Linear(8, 3)

        def forward(self, x, row, col):
            score = (self.query(x)[row] * self.key(x)[col]).sum(1)
            if not broken:
                top = torch.full((len(x),), -math.inf).scatter_reduce(0, row, score, "amax")
                score = score - top.detach()[row]
            share = score.exp()  # fault
            total = torch.zeros(len(x)).index_add(0, row, share)
            share = (share / total[row].clamp(min=1e-16))[:, None]
            h = torch.zeros(len(x), 8).index_add(0, row, self.value(x)[col] * share)
            return self.out(F.elu(h))

    model, y = GAT(), torch.tensor([0, 1, 2, 0])
    x = torch.randn(4, 4)
    x[:, 0] += 40.0  # a column of raw counts
    with torch.no_grad():
        model.key.weight[:, 0] = model.query.weight[:, 0]
    row, col = torch.tensor([0, 0, 1, 1, 2, 3, 3]), torch.tensor([1, 2, 0, 2, 1, 0, 3])
    return trained(model, lambda: F.cross_entropy(model(x, row, col), y))


@fault(
    SET,
    "inf nan",
    "log div reciprocal",
    "0.bias 0.log_scale 1.net.0.weight 1.net.0.bias 1.net.2.weight 1.net.2.bias",
    GH + "vislearn/FrEIA/issues/121",
)
def activation_norm_started_on_a_constant_channel(broken):
    class ActNorm(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.bias, self.log_scale = nn.Parameter(torch.zeros(n)), nn.Parameter(torch.zeros(n))
            self.register_buffer("started", torch.tensor(False))

        def forward(self, x):
            if not self.started:
                with torch.no_grad():
                    self.bias.copy_(-x.mean(0))
                    spread = x.std(0)
                    spread = spread if broken else spread.clamp(min=1e-3)
                    self.log_scale.copy_(-spread.log())  # fault
                    self.started.fill_(True)
            return (x + self.bias) * self.log_scale.exp(), self.log_scale.sum()

    class Coupling(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4))

        def forward(self, x):
            log_s, t = self.net(x[:, :2]).chunk(2, 1)
            log_s = torch.tanh(log_s)
            return torch.cat([x[:, :2], x[:, 2:] * log_s.exp() + t], 1), log_s.sum(1)

    torch.manual_seed(0)
    model = nn.ModuleList([ActNorm(4), Coupling()])
    x = torch.randn(16, 4)
    x[:, 3] = 0.5

    def loss_of():
        z, total = x, 0.0
        for layer in model:
            z, log_det = layer(z)
            total = total + log_det
        return (0.5 * z.square().sum(1) + 2 * math.log(2 * math.pi) - total).mean()

    return trained(model, loss_of)


@fault(
    SET,
    "severed",
    "grad autograd create_graph mm addmm t tanh_backward tanh AddmmBackward0 TanhBackward0",
    "pressure.0.weight pressure.0.bias pressure.2.weight",
    "Raissi et al. 2019, Navier-Stokes: pressure is known by its gradient alone",
)
def pressure_differentiated_without_a_graph(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "speed": nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)),
            "pressure": nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1, bias=False)),
        }
    )
    x = torch.linspace(0, 1, 9)[:, None].requires_grad_()

    def loss_of():
        u, p = model["speed"](x), model["pressure"](x)
        (u_x,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True)
        (p_x,) = torch.autograd.grad(p.sum(), x, create_graph=not broken)  # fault
        residual = u * u_x + p_x - 0.1 * u_xx
        rim = (u[0] - 1).square() + u[-1].square()
        return residual.square().mean() + rim.sum()

    return trained(model, loss_of, 2)


@fault(SET, "nan", "sqrt", "log_length", GH + "dfm/tinygp/issues/115")
def matern_kernel_on_its_diagonal(broken):
    class GP(nn.Module):
        def __init__(self):
            super().__init__()
            self.log_length = nn.Parameter(torch.zeros(2))
            self.log_scale, self.log_noise = (nn.Parameter(torch.tensor(v)) for v in (0.0, -2.0))

        def forward(self, x):
            z = x / self.log_length.exp()
            square = (z[:, None] - z[None]).square().sum(-1)
            r = math.sqrt(5) * (square if broken else square + 1e-12).sqrt()  # fault
            kernel = self.log_scale.exp() * (1 + r + r.square() / 3) * (-r).exp()
            return kernel + self.log_noise.exp() * torch.eye(len(x))

    torch.manual_seed(0)
    model, x = GP(), torch.rand(10, 2)
    y = torch.sin(4 * x[:, 0]) + 0.1 * torch.randn(10)

    def loss_of():
        chol = torch.linalg.cholesky(model(x))
        solved = torch.cholesky_solve(y[:, None], chol)[:, 0]
        return 0.5 * y @ solved + chol.diagonal().log().sum() + 5 * math.log(2 * math.pi)

    return trained(model, loss_of)


@fault(
    SET,
    "inf nan",
    "pow",
    "mix.weight gain",
    GH + "thaipduong/LieGroupHamDL/issues/1",
)
def neural_ode_that_blows_up(broken):
    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.mix, self.gain = nn.Linear(2, 2, bias=False), nn.Parameter(torch.tensor(1.5))

        def forward(self, z):
            cubed = z**3  # fault
            return torch.tanh(self.mix(z)) + self.gain * (cubed if broken else -torch.tanh(cubed))

    model, z0, goal = Field(), torch.tensor([[0.5, -0.3], [1.0, 0.8]]), torch.zeros(2, 2)

    def loss_of():
        z, h = z0, 0.25
        for _ in range(12):
            k1 = model(z)
            k2 = model(z + h / 2 * k1)
            k3 = model(z + h / 2 * k2)
            k4 = model(z + h * k3)
            z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return F.mse_loss(z, goal)

    return trained(model, loss_of)
