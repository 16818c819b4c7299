"""The examination, sixth room: survival, sequences, transport, sound, counts."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.exam.science import trained

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "exam", "https://github.com/"


@fault(SET, "nan", "div high", "log_sigma", GH + "stan-dev/math/issues/2881")
def interval_without_an_upper_end(broken):
    class Censored(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
            self.log_sigma = nn.Parameter(torch.zeros(()))

        def forward(self, x, low, high):
            mu, sigma = self.net(x)[:, 0], self.log_sigma.exp()
            below = torch.sigmoid((low - mu) / sigma)
            open_end = torch.isinf(high)  # the first look at the infinite data: also a # fault
            if not broken:
                high = torch.where(open_end, torch.zeros(()), high)
            above = torch.sigmoid((high - mu) / sigma)  # fault
            above = above if broken else torch.where(open_end, torch.ones(()), above)
            return -(above - below).clamp(min=1e-6).log().mean()

    model, x = Censored(), torch.randn(6, 3)
    low = torch.tensor([0.1, 0.5, -1.0, 0.2, 0.0, -0.5])
    high = torch.tensor([0.9, math.inf, 0.0, 1.0, math.inf, 0.7])
    return trained(model, lambda: model(x, low, high))


@fault(
    SET,
    "nan",
    "div",
    "0.weight 0.bias 1.weight 1.bias 3.weight 3.bias",
    GH + "havakv/pycox/issues/124",
)
def partial_likelihood_of_a_batch_without_events(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    x, time = torch.randn(16, 5), torch.rand(16)
    event = (torch.rand(16) < 0.5).float()
    order = torch.argsort(event)
    batches = order.split(4) if broken else [order[i::4] for i in range(4)]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        for rows in batches:
            optimizer.zero_grad()
            rows = rows[torch.argsort(time[rows], descending=True)]
            risk, seen = model(x[rows])[:, 0], event[rows]
            log_risk = torch.logcumsumexp(risk, 0)
            loss = -((risk - log_risk) * seen).sum() / seen.sum()  # fault
            loss.backward()
            optimizer.step()
        return loss

    return Program(step, model, optimizer)


@fault(
    SET,
    "nan",
    "sub",
    "move emit.weight_ih_l0 emit.weight_hh_l0 emit.bias_ih_l0 emit.bias_hh_l0",
    GH + "rmcgibbo/logsumexp/issues/2",
)
def conditional_random_field_with_an_unreachable_tag(broken):
    def log_sum_exp(scores):
        top = scores.max(1, keepdim=True).values
        if not broken:
            top = top.clamp(min=-1e30)
        inside = (scores - top).exp().sum(1)  # fault
        return top[:, 0] + (inside if broken else inside.clamp(min=1e-30)).log()

    class CRF(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.emit = nn.LSTM(4, 3, batch_first=True)
            self.move = nn.Parameter(torch.randn(3, 3) * 0.1)

        def forward(self, x, tags):
            emit = self.emit(x)[0][0]
            banned = torch.zeros(3, 3, dtype=torch.bool)
            banned[2] = True  # nothing leads to tag 2
            move = self.move.masked_fill(banned, -math.inf)
            alpha, gold = emit[0], emit[0, tags[0]]
            for t in range(1, len(tags)):
                alpha = log_sum_exp(alpha[None] + move) + emit[t]
                gold = gold + move[tags[t], tags[t - 1]] + emit[t, tags[t]]
            return torch.logsumexp(alpha, 0) - gold

    model, x = CRF(), torch.randn(1, 6, 4)
    return trained(model, lambda: model(x, [2, 0, 1, 1, 0, 1]))


TWO_LAYERS = "0.weight 0.bias 2.weight 2.bias"


@fault(SET, "inf nan", "div reciprocal", TWO_LAYERS, GH + "rajewsky-lab/novosparc/issues/50")
def sinkhorn_whose_kernel_underflows(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    x, y = torch.randn(7, 2), torch.randn(7, 2) + 4
    eps = 0.05 if broken else 20.0

    def loss_of():
        cost = (model(x)[:, None] - y[None]).square().sum(-1)
        kernel = torch.exp(-cost / eps)
        u = v = torch.ones(7)
        for _ in range(5):
            u = (1 / 7) / (kernel @ v)  # fault
            v = (1 / 7) / (kernel.t() @ u)
        return (u[:, None] * kernel * v[None] * cost).sum()

    return trained(model, loss_of)


@fault(
    SET,
    "nan inf",
    "pow abs",
    "0.weight 2.weight",
    GH + "KinWaiCheuk/nnAudio/issues/138, compressed",
)
def compressed_spectrum_of_a_silent_frame(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 4, 5, padding=2, bias=False), nn.Tanh())
    model.append(nn.Conv1d(4, 1, 1, bias=False))
    t = torch.arange(64) / 64
    clean = torch.sin(2 * math.pi * 5 * t)[None, None]
    noisy = clean + 0.1 * torch.randn(1, 1, 64)
    noisy[..., :20] = 0.0

    def spectrum(wave):
        frames = wave[0, 0].unfold(0, 8, 8)
        return torch.fft.rfft(frames * torch.hann_window(8))

    def loud(spec):
        power = spec.real.square() + spec.imag.square()
        return (power if broken else power + 1e-8) ** 0.15  # fault

    def loss_of():
        guess, truth = model(noisy), clean
        compressed = F.mse_loss(loud(spectrum(guess)), loud(spectrum(truth)))
        return compressed + 0.2 * F.l1_loss(guess, truth)

    return trained(model, loss_of)


@fault(
    SET,
    "inf nan",
    "log",
    "body.weight body.bias out.weight out.bias",
    GH + "keras-team/keras/issues/2586",
)
def mixture_density_far_from_every_component(broken):
    class MDN(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body, self.out = nn.Linear(1, 8), nn.Linear(8, 9)

        def forward(self, x, y):
            share, mu, log_s = self.out(torch.tanh(self.body(x))).chunk(3, 1)
            log_p = -0.5 * ((y - mu) / log_s.exp()).square() - log_s - 0.5 * math.log(2 * math.pi)
            if broken:
                density = (share.softmax(1) * log_p.exp()).sum(1)
                return -density.log().mean()  # fault
            return -torch.logsumexp(share.log_softmax(1) + log_p, 1).mean()

    model, x = MDN(), torch.linspace(-1, 1, 12)[:, None]
    y = torch.sin(3 * x)
    y[7] = 30.0
    return trained(model, lambda: model(x, y))


@fault(
    SET,
    "inf nan",
    "div",
    "l.weight l.bias",
    "scverse/scvi-tools, the library prior of each batch: a batch with one cell has no variance",
)
def library_prior_of_a_batch_with_one_cell(broken):
    class VAE(nn.Module):
        def __init__(self, x, batch):
            super().__init__()
            torch.manual_seed(0)
            size = x.sum(1).log()
            self.register_buffer("mean", torch.stack([size[batch == b].mean() for b in (0, 1)]))
            spread = torch.stack([size[batch == b].var(unbiased=False) for b in (0, 1)])
            self.register_buffer("spread", spread if broken else spread + 0.01)
            self.z, self.l = nn.Linear(6, 4), nn.Linear(6, 2)
            self.decode, self.log_r = nn.Linear(2, 6), nn.Parameter(torch.zeros(6))

        def forward(self, x, batch):
            mu, logvar = self.z(x.log1p()).chunk(2, 1)
            z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
            size, log_s = self.l(x.log1p()).chunk(2, 1)
            prior, spread = self.mean[batch, None], self.spread[batch, None]
            rate = self.decode(z).softmax(1) * (size + prior).exp()
            r = self.log_r.exp()
            nb = torch.distributions.NegativeBinomial(r, logits=rate.log() - self.log_r)
            miss = (log_s.exp() + size.square()) / spread  # fault
            kl_l = 0.5 * (miss - log_s + spread.clamp(min=1e-8).log() - 1).sum(1)
            kl_z = 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum(1)
            return (kl_z + kl_l - nb.log_prob(x).sum(1)).mean() / 6

    x = torch.poisson(torch.rand(9, 6) * 8 + 1, generator=torch.Generator().manual_seed(2))
    batch = torch.tensor([0] * 8 + [1])
    model = VAE(x, batch)
    return trained(model, lambda: model(x, batch))
