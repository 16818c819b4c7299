"""The second examination, seventh room: diffusion, flows, solvers, physics."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus
from tests.probes.corpus.second_exam import descent

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "second_exam", "https://github.com/"


class Denoiser(nn.Module):
    """A network of a point and an embedded time."""

    def __init__(self, width=8):
        super().__init__()
        torch.manual_seed(0)
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, 16), nn.SiLU())
        self.body, self.out = nn.Linear(2, 16), nn.Linear(16, 2)

    def embed(self, t):
        half = self.width // 2
        angle = t[:, None] * torch.exp(-math.log(1e4) * torch.arange(half) / (half - 1))
        return torch.cat([angle.sin(), angle.cos()], 1)

    def forward(self, x, t):
        return self.out(F.silu(self.body(x) + self.time(self.embed(t))))


@fault(SET, "inf nan", "log", "?", "Karras et al. 2022: the noise level that the last sample has")
def noise_level_of_zero(broken):
    model = Denoiser()
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    x = torch.randn(16, 2) * 0.5
    levels = torch.cat([torch.linspace(0.01, 3, 15), torch.zeros(1 if broken else 0)])

    def loss_of():
        sigma = levels[torch.arange(16) % len(levels)]
        noise = torch.randn_like(x) * sigma[:, None]
        skip = 0.25 / (sigma**2 + 0.25)
        out, into = sigma * 0.5 / (sigma**2 + 0.25).sqrt(), 1 / (sigma**2 + 0.25).sqrt()
        inner = model(into[:, None] * (x + noise), torch.log(sigma) / 4)  # fault
        denoised = skip[:, None] * (x + noise) + out[:, None] * inner
        weight = (sigma**2 + 0.25) / (sigma.clamp(min=0.01) * 0.5) ** 2
        return (weight[:, None] * (denoised - x).square()).mean()

    return descent(loss_of, model, adam)


@fault(
    SET,
    "nan",
    "div mul",
    "?",
    GH + "lucidrains/denoising-diffusion-pytorch, a time embedding of two features",
)
def time_embedding_of_two_features(broken):
    class Small(Denoiser):
        def embed(self, t):
            half = self.width // 2
            place = torch.arange(half) / torch.tensor(float(half - 1))  # fault
            angle = t[:, None] * torch.exp(-math.log(1e4) * place)
            return torch.cat([angle.sin(), angle.cos()], 1)

    model = Small(width=2 if broken else 8)
    x, alpha = torch.randn(16, 2), torch.linspace(0.999, 0.01, 50)

    def loss_of():
        t, noise = torch.randint(0, 50, (16,)), torch.randn(16, 2)
        a = alpha[t][:, None]
        return F.mse_loss(model(a.sqrt() * x + (1 - a).sqrt() * noise, t.float()), noise)

    return descent(loss_of, model, torch.optim.AdamW(model.parameters(), lr=1e-3))


@fault(SET, "nan", "div", "?", "Rezende, Mohamed 2015: the weight of a planar flow at zero")
def planar_flow_with_a_weight_of_zero(broken):
    class Planar(nn.Module):
        def __init__(self):
            super().__init__()
            self.u, self.b = nn.Parameter(torch.randn(2)), nn.Parameter(torch.zeros(1))
            self.w = nn.Parameter(torch.zeros(2) if broken else torch.randn(2) * 0.5)

        def forward(self, z):
            inner = self.w @ self.u
            u = self.u + (F.softplus(inner) - 1 - inner) * self.w / self.w.square().sum()  # fault
            h = torch.tanh(z @ self.w + self.b)
            slope = (1 - h.square())[:, None] * self.w
            return z + u * h[:, None], torch.log((1 + slope @ u).abs())

    torch.manual_seed(0)
    flows = nn.ModuleList(Planar() for _ in range(3))

    def loss_of():
        z, total = torch.randn(32, 2), 0.0
        for flow in flows:
            z, logdet = flow(z)
            total = total + logdet
        energy = 0.5 * ((z.norm(dim=1) - 2) / 0.4).square()
        return (energy - total).mean()

    return descent(loss_of, flows, torch.optim.Adam(flows.parameters(), lr=1e-2))
