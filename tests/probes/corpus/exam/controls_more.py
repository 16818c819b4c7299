"""The examination, controls of sequences, likelihoods and second derivatives."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
healthy = corpus.healthy


@healthy("Truncated backpropagation through time: the state is cut on purpose at every chunk")
def language_model_in_chunks(_):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "embed": nn.Embedding(9, 8, padding_idx=0),
            "lstm": nn.LSTM(8, 8, 2),
            "out": nn.Linear(8, 9),
        }
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    tokens = torch.randint(1, 9, (13, 3))
    tokens[10:, 1:] = 0

    def step():
        state, total = None, 0.0
        for chunk, goal in zip(tokens[:-1].split(4), tokens[1:].split(4), strict=True):
            optimizer.zero_grad()
            out, state = model["lstm"](model["embed"](chunk), state)
            state = tuple(part.detach() for part in state)
            logits = model["out"](out).flatten(0, 1)
            loss = F.cross_entropy(logits, goal.flatten(), ignore_index=0)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            optimizer.step()
            total += loss.item()
        return torch.tensor(total)

    return Program(step, model, optimizer, 2)


@healthy("Lopez et al. 2018: a gene that is never seen, biases before a batch norm, KL from zero")
def count_autoencoder_with_an_annealed_kl(_):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "encode": nn.Sequential(nn.Linear(7, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1)),
            "mu": nn.Linear(8, 2),
            "logvar": nn.Linear(8, 2),
            "decode": nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 7)),
        }
    )
    model.register_parameter("log_r", nn.Parameter(torch.zeros(7)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=0.01)
    x, epoch = torch.poisson(torch.rand(12, 7) * 6), [0]
    x[:, 4] = 0.0
    size = x.sum(1, keepdim=True)

    def step():
        optimizer.zero_grad()
        h = model["encode"](x.log1p())
        mu, logvar = model["mu"](h), model["logvar"](h)
        z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
        log_rate = model["decode"](z).log_softmax(1) + size.log()
        r = model.log_r.exp()
        log_sum = torch.logaddexp(log_rate, model.log_r.expand_as(log_rate))
        log_p = torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1)
        log_p = log_p + r * (model.log_r - log_sum) + x * (log_rate - log_sum)
        kl = 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum(1)
        loss = (min(1.0, epoch[0] / 2) * kl - log_p.sum(1)).mean()
        loss.backward()
        optimizer.step()
        epoch[0] += 1
        return loss

    return Program(step, model, optimizer, 3)


@healthy("Raissi et al. 2019; Nocedal 1980: second derivatives, L-BFGS, a closure that runs often")
def heat_equation_by_lbfgs(_):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 10), nn.Tanh(), nn.Linear(10, 1))
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4, line_search_fn="strong_wolfe")
    points = torch.rand(20, 2)
    x, t = (points[:, i : i + 1].clone().requires_grad_() for i in (0, 1))
    start = torch.cat([points[:, :1], torch.zeros(20, 1)], 1)

    def closure():
        optimizer.zero_grad()
        u = model(torch.cat([x, t], 1))
        u_x, u_t = torch.autograd.grad(u.sum(), (x, t), create_graph=True)
        (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True)
        rim = model(start) - torch.sin(math.pi * points[:, :1])
        loss = (u_t - 0.1 * u_xx).square().mean() + rim.square().mean()
        loss.backward()
        return loss

    return Program(lambda: optimizer.step(closure), model, optimizer, 2)


@healthy("Kalman 1960: missing observations as NaN, replaced before they are used")
def kalman_filter_with_gaps(_):
    log_q, log_r = (nn.Parameter(torch.tensor(v)) for v in (-1.0, 0.0))
    damp = nn.Parameter(torch.tensor(0.9))
    model = nn.ParameterList([log_q, log_r, damp])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    y = torch.sin(torch.arange(20) / 3.0)
    y[[3, 4, 11]] = float("nan")
    there = ~torch.isnan(y)
    filled = torch.where(there, y, torch.zeros(()))

    def step():
        optimizer.zero_grad()
        m, p, total = torch.zeros(()), torch.ones(()), torch.zeros(())
        for value, seen in zip(filled, there, strict=True):
            m, p = damp * m, damp.square() * p + log_q.exp()
            spread, miss = p + log_r.exp(), value - m
            total = total + seen * (spread.log() + miss.square() / spread)
            gain = seen * p / spread
            m, p = m + gain * miss, (1 - gain) * p
        loss = 0.5 * total / there.sum()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Lafferty et al. 2001: banned moves of -inf in a stable recursion")
def conditional_random_field_with_banned_moves(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"emit": nn.GRU(4, 4, batch_first=True)})
    model.register_parameter("move", nn.Parameter(torch.randn(4, 4) * 0.1))
    banned = torch.zeros(4, 4, dtype=torch.bool)
    banned[0, 2] = banned[3, 1] = banned[2, 3] = True
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, tags = torch.randn(1, 7, 4), [0, 1, 1, 2, 3, 3, 0]

    def step():
        optimizer.zero_grad()
        emit = model["emit"](x)[0][0]
        move = model.move.masked_fill(banned, -math.inf)
        first = torch.full((4,), -math.inf)
        first[0] = 0.0
        alpha, gold = first + emit[0], emit[0, tags[0]]
        for t in range(1, 7):
            alpha = torch.logsumexp(alpha[None] + move, 1) + emit[t]
            gold = gold + move[tags[t], tags[t - 1]] + emit[t, tags[t]]
        loss = torch.logsumexp(alpha, 0) - gold
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Chen et al. 2016: recomputed blocks; their first pass runs without a graph")
def residual_network_with_recomputed_blocks(_):
    torch.manual_seed(0)
    blocks = nn.ModuleList(
        nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        for _ in range(4)
    )
    model = nn.ModuleDict({"enter": nn.Linear(5, 8), "blocks": blocks, "out": nn.Linear(8, 3)})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x, y = torch.randn(6, 5), torch.randint(0, 3, (6,))

    def step():
        optimizer.zero_grad()
        h = model["enter"](x)
        for number, block in enumerate(blocks):
            h = h + checkpoint(block, h, use_reentrant=number % 2 == 0)
        loss = F.cross_entropy(model["out"](h), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Phase losses: the angle of a silent frame, for which torch has a finite gradient")
def phase_loss_with_silence(_):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 4, 5, padding=2, bias=False), nn.Tanh())
    model.append(nn.Conv1d(4, 1, 1, bias=False))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    clean = torch.sin(2 * math.pi * 5 * torch.arange(64) / 64)[None, None]
    noisy = clean + 0.1 * torch.randn(1, 1, 64)
    noisy[..., :20] = 0.0
    window = torch.hann_window(8)

    def spectrum(wave):
        return torch.fft.rfft(wave[0, 0].unfold(0, 8, 8) * window)

    def step():
        optimizer.zero_grad()
        guess, truth = spectrum(model(noisy)), spectrum(clean)
        turn = torch.atan2(guess.imag, guess.real) - truth.angle()
        loss = F.l1_loss(guess.abs(), truth.abs()) + (1 - turn.cos()).mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer)
