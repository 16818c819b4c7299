"""The fifth examination, eleventh room: healthy games, beams, gates and mixtures."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy


@healthy("Shen et al. 2016: minimum risk over a beam that was searched without gradients")
def minimum_risk_over_a_beam(_):
    class Decoder(nn.Module):
        def __init__(self, v=7, d=10):
            super().__init__()
            self.embed, self.rnn = nn.Embedding(v, d), nn.GRU(d, d, batch_first=True)
            self.out = nn.Linear(d, v)

        def forward(self, words):
            return self.out(self.rnn(self.embed(words))[0]).log_softmax(-1)

    model, truth = Decoder(), torch.tensor([0, 3, 5, 2, 1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    @torch.no_grad()
    def beam(width=3, length=4):
        words = torch.zeros(width, 1, dtype=torch.long)
        scores = torch.tensor([0.0] + [-math.inf] * (width - 1))
        for _ in range(length):
            total = scores[:, None] + model(words)[:, -1]
            scores, flat = total.flatten().topk(width)
            words = torch.cat([words[flat // 7], (flat % 7)[:, None]], 1)
        return words

    def step():
        model.eval()
        words = beam()
        model.train()
        log_p = model(words[:, :-1]).gather(-1, words[:, 1:, None]).squeeze(-1).sum(1)
        risk = (words != truth).float().mean(1)
        loss = ((0.5 * log_p).softmax(0) * risk).sum()
        if risk.std() == 0:
            loss = loss - log_p.mean()
        optimizer.zero_grad()
        (loss - 0.1 * model(truth[None, :-1])[0].gather(-1, truth[1:, None]).mean()).backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 2)


@healthy("Sitzmann et al. 2020: a network of sines fitted to the slopes of its target")
def sine_network_fitted_to_slopes(_):
    class Sine(nn.Module):
        def __init__(self, a, b, first=False):
            super().__init__()
            self.linear = nn.Linear(a, b)
            bound = 1 / a if first else (6 / a) ** 0.5 / 30
            nn.init.uniform_(self.linear.weight, -bound, bound)

        def forward(self, x):
            return torch.sin(30 * self.linear(x))

    model = nn.Sequential(Sine(1, 16, True), Sine(16, 16), nn.Linear(16, 1, bias=False))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    place = torch.linspace(-1, 1, 24)[:, None]

    def step():
        x = place.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        loss = F.mse_loss(slope, 3 * torch.cos(3 * place))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 2)


@healthy("Wu et al. 2021, R-Drop: two passes with other dropout agree with each other")
def two_passes_that_agree(_):
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4))
    x, y = torch.randn(12, 6), torch.randint(0, 4, (12,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        p, q = model(x).log_softmax(-1), model(x).log_softmax(-1)
        both = F.kl_div(p, q, reduction="batchmean", log_target=True)
        both = both + F.kl_div(q, p, reduction="batchmean", log_target=True)
        loss = 0.5 * (F.nll_loss(p, y) + F.nll_loss(q, y)) + 0.25 * both
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 2)


@healthy("Khosla et al. 2020: anchors without a partner are left out after the softmax")
def anchors_without_a_partner(_):
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4))
    x, y = torch.randn(9, 6), torch.tensor([0, 0, 1, 1, 1, 2, 3, 3, 4])
    itself = torch.eye(9, dtype=torch.bool)
    partner = (y[:, None] == y) & ~itself
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def step():
        z = F.normalize(model(x), dim=-1)
        logits = (z @ z.T / 0.1).masked_fill(itself, -math.inf)
        log_p = logits.log_softmax(-1)
        kept = torch.where(partner, log_p, 0.0).sum(1)
        loss = -(kept / partner.sum(1).clamp(min=1))[partner.any(1)].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Zaheer et al. 2017: sets of unequal size, and one of them is empty")
def sets_of_which_one_is_empty(_):
    class DeepSet(nn.Module):
        def __init__(self):
            super().__init__()
            self.phi, self.rho = nn.Linear(3, 8), nn.Linear(24, 1)

        def forward(self, x, mask):
            h = torch.relu(self.phi(x)) * mask[..., None]
            count = mask.sum(1, keepdim=True)
            top = h.masked_fill(~mask.bool()[..., None], -math.inf).amax(1)
            top = torch.where(count > 0, top, 0.0)
            spread = (h.square().sum(1) / count.clamp(min=1) + 1e-6).sqrt()
            return self.rho(torch.cat([h.sum(1), top, spread], -1))

    model, x, y = DeepSet(), torch.randn(5, 6, 3), torch.randn(5, 1)
    mask = (torch.arange(6) < torch.tensor([[6], [3], [0], [1], [4]])).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x, mask), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 2)


@healthy("Kumar et al. 2019: feature matching of a vocoder, its critics are not frozen")
def feature_matching_of_a_vocoder(_):
    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Conv1d(1, 4, 5, 2), nn.Conv1d(4, 1, 3)])

        def forward(self, x):
            first = F.leaky_relu(self.layers[0](x), 0.2)
            return [first, self.layers[1](first)]

    vocoder = nn.Sequential(nn.ConvTranspose1d(3, 4, 4, 4), nn.ReLU(), nn.Conv1d(4, 1, 1))
    critics = nn.ModuleList([Critic(), Critic()])
    g_opt = torch.optim.Adam(vocoder.parameters(), lr=1e-3, betas=(0.5, 0.9))
    d_opt = torch.optim.Adam(critics.parameters(), lr=1e-3, betas=(0.5, 0.9))
    mel, wave = torch.randn(2, 3, 8), torch.randn(2, 1, 32).tanh()

    def scales(x):
        return zip(critics, (x, F.avg_pool1d(x, 2)), strict=True)

    def step():
        fake = torch.tanh(vocoder(mel))
        d_loss = sum(F.relu(1 + critic(x)[-1]).mean() for critic, x in scales(fake.detach()))
        d_loss = d_loss + sum(F.relu(1 - critic(x)[-1]).mean() for critic, x in scales(wave))
        critics.zero_grad()
        d_loss.backward()
        d_opt.step()
        answers = [critic(x) for critic, x in scales(fake)]
        with torch.no_grad():
            wanted = [critic(x) for critic, x in scales(wave)]
        g_loss = -sum(a[-1].mean() for a in answers)
        g_loss = g_loss + 10 * sum(
            F.l1_loss(a[0], w[0]) for a, w in zip(answers, wanted, strict=True)
        )
        vocoder.zero_grad()
        g_loss.backward()
        g_opt.step()
        return g_loss.item(), d_loss.item()

    models = nn.ModuleDict({"vocoder": vocoder, "critics": critics})
    return Program(step, models, (g_opt, d_opt), 2)


@healthy("Zhu et al. 2017: two translators, critics switched off and on, a pool of old fakes")
def cycle_of_two_translators(_):
    def net(out):
        return nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Linear(8, out))

    m = nn.ModuleDict({"ab": net(4), "ba": net(4), "a": net(1), "b": net(1)})
    g_opt = torch.optim.Adam([*m["ab"].parameters(), *m["ba"].parameters()], lr=2e-4)
    d_opt = torch.optim.Adam([*m["a"].parameters(), *m["b"].parameters()], lr=2e-4)
    real_a, real_b, pool = torch.randn(6, 4), torch.randn(6, 4) + 1, []

    def step():
        for name in "ab":
            m[name].requires_grad_(False)
        fake_b, fake_a = m["ab"](real_a), m["ba"](real_b)
        loss = (m["b"](fake_b) - 1).square().mean() + (m["a"](fake_a) - 1).square().mean()
        loss = loss + 10 * (F.l1_loss(m["ba"](fake_b), real_a) + F.l1_loss(m["ab"](fake_a), real_b))
        loss = loss + 5 * (F.l1_loss(m["ab"](real_b), real_b) + F.l1_loss(m["ba"](real_a), real_a))
        g_opt.zero_grad()
        loss.backward()
        g_opt.step()
        for name in "ab":
            m[name].requires_grad_(True)
        pool.append((fake_a.detach(), fake_b.detach()))
        d_opt.zero_grad()
        old = pool[len(pool) // 2]
        for name, real, fake in (("a", real_a, old[0]), ("b", real_b, old[1])):
            error = (m[name](real) - 1).square().mean() + m[name](fake).square().mean()
            (0.5 * error).backward()
        d_opt.step()
        return loss.item()

    return Program(step, m, (g_opt, d_opt), 3)
