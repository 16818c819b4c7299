"""The examination, controls: whole healthy programs with what makes naive tools alarm."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.exam.programs import GPT

corpus = Corpus()
healthy = corpus.healthy


@healthy("karpathy/nanoGPT: masks of -inf, padding, ignored labels, warm-up from a rate of zero")
def padded_language_model_with_warm_up(_):
    lengths = torch.tensor([6, 4, 2])
    keys = torch.arange(6)[None] < lengths[:, None]

    def forbid(scores):
        seen = torch.ones(6, 6, dtype=torch.bool).tril() & keys[:, None, None]
        return scores + torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))

    model, tokens = GPT(forbid), torch.randint(0, 11, (3, 7))
    labels = tokens[:, 1:].masked_fill(~keys, -100)
    decay = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], lr=1e-3
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min(1.0, t / 2))

    def step():
        optimizer.zero_grad(set_to_none=True)
        logits = model(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        return loss

    return Program(step, model, optimizer, 3)


@healthy("Ho et al. 2020; Zhang, Dauphin, Ma 2019: an output that starts at zero, and its average")
def diffusion_with_a_zero_last_layer_and_an_average(_):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.GroupNorm(2, 4),
        nn.SiLU(),
        nn.Conv2d(4, 1, 3, padding=1),
    )
    nn.init.zeros_(model[3].weight)
    nn.init.zeros_(model[3].bias)
    average = copy.deepcopy(model).requires_grad_(False).eval()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, count = torch.rand(4, 1, 8, 8), [0]

    def step():
        optimizer.zero_grad()
        noise, t = torch.randn_like(x), torch.rand(4, 1, 1, 1)
        loss = F.mse_loss(model(t.cos() * x + t.sin() * noise), noise)
        loss.backward()
        optimizer.step()
        count[0] += 1
        share = min(0.999, (1 + count[0]) / (10 + count[0]))
        for a, p in zip(average.parameters(), model.parameters(), strict=True):
            a.mul_(share).add_(p.detach(), alpha=1 - share)
        return loss

    return Program(step, model, optimizer, 3)


@healthy("Gulrajani et al. 2017: a gradient of the critic inside its loss, two players")
def wasserstein_game_with_a_gradient_penalty(_):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "generator": nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4)),
            "critic": nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1)),
        }
    )
    adam = {
        k: torch.optim.Adam(m.parameters(), lr=1e-4, betas=(0.0, 0.9)) for k, m in model.items()
    }
    real, z = torch.randn(8, 4), torch.randn(8, 3)

    def step():
        fake = model["generator"](z)
        for _ in range(2):
            adam["critic"].zero_grad()
            share = torch.rand(8, 1)
            between = (share * real + (1 - share) * fake.detach()).requires_grad_()
            score = model["critic"](between)
            (slope,) = torch.autograd.grad(score.sum(), between, create_graph=True)
            penalty = 10 * (slope.norm(dim=1) - 1).square().mean()
            gap = model["critic"](fake.detach()).mean() - model["critic"](real).mean()
            (gap + penalty).backward()
            adam["critic"].step()
        adam["generator"].zero_grad()
        loss = -model["critic"](fake).mean()
        loss.backward()
        adam["generator"].step()
        return loss

    return Program(step, model, list(adam.values()), 2)


@healthy("Mnih et al. 2015; van Hasselt et al. 2016: target network, argmax, ended episodes")
def double_deep_q_learning(_):
    torch.manual_seed(0)
    online = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    target = copy.deepcopy(online)
    optimizer = torch.optim.RMSprop(online.parameters(), lr=1e-3)
    s, s2, r = torch.randn(16, 4), torch.randn(16, 4), torch.randn(16)
    a, done = torch.randint(0, 3, (16,)), torch.rand(16) < 0.3

    def step():
        with torch.no_grad():
            best = online(s2).argmax(1, keepdim=True)
            goal = r + 0.99 * target(s2).gather(1, best)[:, 0] * ~done
        value = online(s).gather(1, a[:, None])[:, 0]
        optimizer.zero_grad()
        loss = F.smooth_l1_loss(value, goal)
        loss.backward()
        nn.utils.clip_grad_value_(online.parameters(), 1.0)
        optimizer.step()
        target.load_state_dict(online.state_dict())
        return loss

    return Program(step, nn.ModuleDict({"online": online, "target": target}), optimizer, 2)


@healthy("Haarnoja et al. 2018: twin critics, learned temperature, actor frozen out of its critics")
def soft_actor_critic_that_freezes_its_critics(_):
    torch.manual_seed(0)
    actor = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 4))
    critics = nn.ModuleList(
        nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 1)) for _ in range(2)
    )
    targets = copy.deepcopy(critics).requires_grad_(False)
    log_alpha = nn.Parameter(torch.tensor(-1.0))
    model = nn.ModuleDict({"actor": actor, "critics": critics})
    model.register_parameter("log_alpha", log_alpha)
    adam_actor, adam_critics, adam_alpha = (
        torch.optim.Adam(p, lr=3e-4)
        for p in (actor.parameters(), critics.parameters(), [log_alpha])
    )
    s, a, s2 = torch.randn(8, 3), torch.rand(8, 2) * 2 - 1, torch.randn(8, 3)
    r, alive = torch.randn(8, 1), (torch.rand(8, 1) < 0.8).float()

    def act(state):
        mu, log_std = actor(state).chunk(2, 1)
        policy = torch.distributions.Normal(mu, log_std.clamp(-20, 2).exp())
        u = policy.rsample()
        log_p = policy.log_prob(u) - 2 * (math.log(2) - u - F.softplus(-2 * u))
        return torch.tanh(u), log_p.sum(1, keepdim=True)

    def least(nets, state, action):
        return torch.min(*(net(torch.cat([state, action], 1)) for net in nets))

    def step():
        with torch.no_grad():
            a2, log_p2 = act(s2)
            goal = r + 0.99 * alive * (least(targets, s2, a2) - log_alpha.exp() * log_p2)
        adam_critics.zero_grad()
        sum(F.mse_loss(net(torch.cat([s, a], 1)), goal) for net in critics).backward()
        adam_critics.step()
        critics.requires_grad_(False)
        adam_actor.zero_grad()
        new, log_p = act(s)
        loss = (log_alpha.exp().detach() * log_p - least(critics, s, new)).mean()
        loss.backward()
        adam_actor.step()
        critics.requires_grad_(True)
        adam_alpha.zero_grad()
        (-log_alpha * (log_p.detach() - 2.0).mean()).backward()
        adam_alpha.step()
        for t, p in zip(targets.parameters(), critics.parameters(), strict=True):
            t.lerp_(p.detach(), 0.005)
        return loss

    return Program(step, model, [adam_actor, adam_critics, adam_alpha], 2)


@healthy("Kipf, Welling 2017: a node without neighbours, whose infinite weight is set to zero")
def graph_convolution_with_a_lonely_node(_):
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(4, 8), nn.Linear(8, 3)])
    row, col = torch.tensor([0, 1, 1, 2, 3, 4]), torch.tensor([1, 0, 2, 1, 4, 3])
    x, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    known = torch.tensor([True, True, False, True, False, True])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)

    def spread(h):
        degree = torch.zeros(6).index_add(0, row, torch.ones(6))
        scale = degree.pow(-0.5)
        scale[torch.isinf(scale)] = 0.0
        return torch.zeros_like(h).index_add(0, row, h[col] * (scale[row] * scale[col])[:, None])

    def step():
        optimizer.zero_grad()
        h = F.dropout(torch.relu(model[0](spread(x))), 0.5)
        out = model[1](h + spread(h)).log_softmax(1)
        loss = F.nll_loss(out[known], y[known])
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)
