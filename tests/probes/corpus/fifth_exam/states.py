"""The fifth examination, fourth room: buffers, scalers, and what an optimizer does."""

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
    "sqrt",
    "?",
    "van Hasselt et al. 2016, PopArt: the spread from two moments of constant returns",
)
def popart_spread_of_constant_returns(broken):
    class PopArt(nn.Module):
        def __init__(self, beta=0.3):
            super().__init__()
            self.linear, self.beta = nn.Linear(8, 1), beta
            self.register_buffer("mu", torch.zeros(1))
            self.register_buffer("nu", torch.ones(1))
            self.register_buffer("sigma", torch.ones(1))

        @torch.no_grad()
        def update(self, returns):
            self.mu.lerp_(returns.mean(), self.beta)
            self.nu.lerp_(returns.square().mean(), self.beta)
            variance = self.nu - self.mu**2
            if not broken:
                variance = variance.clamp(min=1e-4)
            self.sigma.copy_(variance.sqrt())  # fault

    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 8), PopArt(beta=1.0)

        def forward(self, s):
            return self.head.linear(torch.tanh(self.body(s))).squeeze(-1)

    critic, states = Critic(), torch.randn(3, 7, 4)
    returns = [torch.randn(7) + 5, torch.full((7,), 7.22), torch.randn(7) + 5]
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)
    batches = iter(zip(states, returns, strict=True))

    def step():
        s, g = next(batches)
        critic.head.update(g)
        target = (g - critic.head.mu) / critic.head.sigma
        loss = F.mse_loss(critic(s), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, critic, optimizer, 2)


@fault(
    SET,
    "nan inf",
    "log",
    "?",
    "Nichol, Dhariwal 2021: the posterior variance at the first noise level is zero",
    building=True,
)
def learned_variance_at_the_first_noise_level(broken):
    class Diffusion(nn.Module):
        def __init__(self, steps=10):
            super().__init__()
            betas = torch.linspace(1e-3, 0.2, steps)
            bar = (1 - betas).cumprod(0)
            before = torch.cat([torch.ones(1), bar[:-1]])
            variance = betas * (1 - before) / (1 - bar)
            if not broken:
                variance = torch.cat([variance[1:2], variance[1:]])
            self.register_buffer("bar", bar)
            self.register_buffer("low", variance.log())  # fault
            self.register_buffer("high", betas.log())
            self.net = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 4))

        def forward(self, x, t):
            noise = torch.randn_like(x)
            a = self.bar[t].unsqueeze(-1)
            noisy = a.sqrt() * x + (1 - a).sqrt() * noise
            guess, part = self.net(torch.cat([noisy, t.unsqueeze(-1) / 10], -1)).chunk(2, -1)
            part = (part.tanh() + 1) / 2
            high, low = self.high[t].unsqueeze(-1), self.low[t].unsqueeze(-1)
            logvar = part * high + (1 - part) * low
            bound = 0.5 * (logvar - high + (high - logvar).exp())
            return F.mse_loss(guess, noise) + 1e-3 * bound.mean()

    model, x = Diffusion(), torch.randn(12, 2)
    t = torch.arange(12) % 10
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        loss = model(x, t)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 1)


@fault(
    SET,
    "nan inf",
    "mul sub div round min_val max_val clamp",
    "?",
    "Quantisation-aware training: fake quantisation is on before the observer has seen data",
)
def observer_that_saw_no_data(broken):
    class FakeQuant(nn.Module):
        def __init__(self, observe):
            super().__init__()
            self.observe = observe
            self.register_buffer("min_val", torch.tensor(float("inf")))
            self.register_buffer("max_val", torch.tensor(float("-inf")))

        def forward(self, x):
            if self.observe:
                self.min_val.copy_(torch.minimum(self.min_val, x.detach().min()))
                self.max_val.copy_(torch.maximum(self.max_val, x.detach().max()))
            scale = (self.max_val - self.min_val) / 255  # fault
            q = (x / scale).round() * scale  # fault
            return x + (q - x).detach()

    model = nn.Sequential(
        nn.Linear(4, 8), FakeQuant(True), nn.ReLU(), nn.Linear(8, 2), FakeQuant(not broken)
    )
    x, y = torch.randn(9, 4), torch.randint(0, 2, (9,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 1)


@fault(
    SET,
    "nan inf",
    "rsqrt pow div reciprocal",
    "embed.weight",
    "Shazeer, Stern 2018: the factored second moment of a row that no batch used",
)
def factored_moment_of_an_unused_row(broken):
    class Adafactor(torch.optim.Optimizer):
        def __init__(self, params, lr=1e-2, eps=1e-30):
            super().__init__(params, {"lr": lr, "eps": eps})

        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    update = p.grad.square() + group["eps"]
                    if p.dim() == 2:
                        row, column = update.mean(-1), update.mean(-2)
                        r = (row / row.mean()).rsqrt().unsqueeze(-1)  # fault
                        c = column.rsqrt().unsqueeze(0)  # fault
                        update = p.grad * r * c
                    else:
                        update = p.grad * update.rsqrt()
                    p.add_(update, alpha=-group["lr"])

    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(11, 6), nn.Linear(6, 3)

        def forward(self, words):
            return self.out(self.embed(words).mean(1))

    model = Bag()
    words, y = torch.randint(0, 8, (10, 4)), torch.randint(0, 3, (10,))
    optimizer = Adafactor(model.parameters(), eps=0.0 if broken else 1e-20)

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(words), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 1)


@fault(
    SET,
    "nan",
    "div reciprocal",
    "first.bias",
    "Brock et al. 2021, adaptive clipping: the bias of a dead unit, zero over zero",
)
def adaptive_clipping_of_a_silent_bias(broken):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 1)
            nn.init.zeros_(self.first.bias)

        def forward(self, x):
            return self.second(F.relu(self.first(x)))

    model, x, y = Net(), torch.rand(12, 5), torch.randn(12, 1)
    with torch.no_grad():
        model.first.weight[2].abs_().neg_()  # a unit that never answers
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def adaptive_clip(parameters, clipping=0.01, eps=1e-3):
        for p in parameters:
            g = p.grad
            size = (lambda t: t.norm(dim=1, keepdim=True)) if p.dim() > 1 else torch.abs
            longest = size(p.detach()) * clipping
            if not broken:
                longest = longest.clamp(min=eps * clipping)
            g.mul_((longest / size(g)).clamp(max=1.0))  # fault

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        adaptive_clip(model.parameters())
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 1)
