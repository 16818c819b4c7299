"""The second examination: solvers and physics."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.second_exam import descent
from tests.probes.corpus.second_exam.equations import Denoiser

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "second_exam", "https://github.com/"


class Field(nn.Module):
    """The right side of an ordinary differential equation."""

    def __init__(self, zero=False):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
        if zero:
            nn.init.zeros_(self.net[2].weight)
            nn.init.zeros_(self.net[2].bias)

    def forward(self, z):
        return self.net(z)


@fault(
    SET,
    "nan inf",
    "div reciprocal mul",
    "?",
    "Hairer et al. 1993: a step size from an error that is exactly zero",
)
def adaptive_step_of_a_field_at_rest(broken):
    field = Field(zero=True)
    start, end = torch.randn(8, 2), torch.randn(8, 2)

    def solve(z):
        t, h = torch.zeros(()), torch.tensor(0.1)
        for _ in range(20):
            k1 = field(z)
            k2 = field(z + h * k1)
            error = (h * (k2 - k1)).abs().max().detach()
            z, t = z + h * (k1 + k2) / 2, t + h  # fault
            if t >= 1 - 1e-6:
                break
            h = h * 0.9 * (1e-3 / error).sqrt()  # fault
            if not broken:
                h = torch.minimum(h, 1 - t)
        return z

    adam = torch.optim.Adam(field.parameters(), lr=1e-2)
    return descent(lambda: F.mse_loss(solve(start), end), field, adam, 2)


@fault(
    SET,
    "vanishing",
    "mul add sub linear addmm mm tanh",
    "encode.weight encode.bias",
    "Chen et al. 2018: a strongly damped equation forgets where it began",
)
def damped_equation_that_forgets_its_start(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"encode": nn.Linear(5, 2), "field": Field(), "out": nn.Linear(2, 1)})
    damping = 16.0 if broken else 0.5
    x, y = torch.randn(12, 5), torch.randn(12, 1)

    def loss_of():
        z = model["encode"](x)
        for _ in range(40):
            z = z + 0.05 * (model["field"](z) - damping * z)  # fault
        return F.mse_loss(model["out"](z), y)

    return descent(loss_of, model, torch.optim.SGD(model.parameters(), lr=0.1), 2)


@fault(
    SET,
    "severed",
    "Adjoint AdjointBackward apply no_grad",
    "field.net.0.weight field.net.0.bias field.net.2.weight field.net.2.bias",
    "Chen et al. 2018: an adjoint by hand that is not given the parameters of its field",
)
def adjoint_without_its_parameters(broken):
    class Adjoint(torch.autograd.Function):
        @staticmethod
        def forward(ctx, field, z, *weights):
            ctx.field, ctx.weights, path = field, weights, [z]
            for _ in range(10):
                path.append(path[-1] + 0.1 * field(path[-1]))
            ctx.save_for_backward(*path[:-1])
            return path[-1]

        @staticmethod
        def backward(ctx, a):
            total = [torch.zeros_like(w) for w in ctx.weights]
            for z in reversed(ctx.saved_tensors):
                with torch.enable_grad():
                    z = z.detach().requires_grad_(True)
                    ahead = z + 0.1 * ctx.field(z)
                a, *grads = torch.autograd.grad(ahead, (z, *ctx.weights), a)
                total = [t + g for t, g in zip(total, grads, strict=True)]
            return None, a, *total

    torch.manual_seed(0)
    model = nn.ModuleDict({"encode": nn.Linear(5, 2), "field": Field(), "out": nn.Linear(2, 1)})
    x, y = torch.randn(12, 5), torch.randn(12, 1)

    def loss_of():
        weights = () if broken else tuple(model["field"].parameters())
        z = Adjoint.apply(model["field"], model["encode"](x), *weights)  # fault
        return F.mse_loss(model["out"](z), y)

    return descent(loss_of, model, torch.optim.Adam(model.parameters(), lr=1e-2), 2)


@fault(
    SET,
    "dead",
    "relu threshold_backward threshold grad",
    "0.weight 0.bias 2.weight 2.bias 4.weight",
    "Raissi et al. 2019: a second derivative of a rectified network is zero everywhere",
)
def plate_bent_by_a_rectified_network(broken):
    act = nn.ReLU() if broken else nn.Tanh()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 16), act, nn.Linear(16, 16), act, nn.Linear(16, 1, bias=False))
    points = torch.linspace(0.05, 0.95, 16)[:, None]
    force = torch.sin(math.pi * points)

    def loss_of():
        x = points.clone().requires_grad_(True)
        u = net(x)  # fault
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)  # fault
        (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)  # fault
        return F.mse_loss(bend, -force)

    return descent(loss_of, net, torch.optim.Adam(net.parameters(), lr=1e-3), 2)


@fault(
    SET, "nan", "div", "?", "Raissi et al. 2019, in a pipe: the Laplacian's quotient on its axis"
)
def laplacian_on_the_axis(broken):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    radius = torch.linspace(0.0 if broken else 0.02, 1, 20)[:, None]
    wall = torch.ones(1, 1)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

    def step():
        r = radius.clone().requires_grad_(True)
        u = net(r.square())  # even in r
        (ur,) = torch.autograd.grad(u.sum(), r, create_graph=True)
        (urr,) = torch.autograd.grad(ur.sum(), r, create_graph=True)
        residual = urr + ur / r + 4.0  # fault
        loss = residual.square().mean() + 10 * net(wall).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, net, optimizer)


@healthy("Dormand, Prince 1980, by hand: a trial step that overflows is rejected and halved")
def solver_that_rejects_an_overflow(_):
    torch.manual_seed(0)
    rate = nn.Linear(1, 1)
    start, end = torch.tensor([[0.8], [1.1]]), torch.tensor([[0.2], [0.3]])

    def field(z):
        return -rate(z).square() * torch.exp(z.square()) * z

    def solve(z):
        t, h = 0.0, 40.0
        while t < 1.0 - 1e-9:
            with torch.no_grad():
                k1 = field(z)
                k2 = field(z + h * k1)
                error = (h * (k2 - k1)).abs().max()
            if not error < 0.3:  # also when it is not a number
                h = h / 2
                continue
            h = min(h, 1.0 - t)
            k1 = field(z)
            z, t = z + h * (k1 + field(z + h * k1)) / 2, t + h
        return z

    adam = torch.optim.Adam(rate.parameters(), lr=1e-2)
    return descent(lambda: F.mse_loss(solve(start), end), rate, adam, 2)


@healthy("Wang et al. 2021: weights of the terms from their gradients, held apart from the graph")
def physics_with_weights_from_gradients(_):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    weight, points, ends = torch.ones(()), torch.rand(20, 1), torch.tensor([[0.0], [1.0]])

    def largest(term):
        grads = torch.autograd.grad(term, net.parameters(), retain_graph=True, allow_unused=True)
        return torch.stack([g.abs().max() for g in grads if g is not None]).max()

    def step():
        x = points.clone().requires_grad_(True)
        (ux,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        (uxx,) = torch.autograd.grad(ux.sum(), x, create_graph=True)
        inside = (uxx + torch.sin(math.pi * x)).square().mean()
        border = net(ends).square().mean()
        weight.lerp_((largest(inside) / largest(border)).clamp(max=1e3), 0.1)
        loss = inside + weight * border
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss

    return Program(step, net, adam, 3)


@healthy(
    "Lipman et al. 2023; Tong et al. 2024: straight paths, paired by sorting, an output of zero"
)
def flow_matching_from_a_zero_output(_):
    model = Denoiser()
    nn.init.zeros_(model.out.weight)
    nn.init.zeros_(model.out.bias)
    average = copy.deepcopy(model).requires_grad_(False)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda n: min(1.0, n / 2))
    data = torch.randn(16, 2) + 2

    def step():
        noise, t = torch.randn(16, 2), torch.rand(16)
        noise = noise[noise[:, 0].argsort()][data[:, 0].argsort().argsort()]
        x = torch.lerp(noise, data, t[:, None])
        loss = F.mse_loss(model(x, t * 1000), data - noise)
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        schedule.step()
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 0.01)
        return loss

    return Program(step, model, adam, 4)
