"""The second examination: agents that are well."""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "second_exam", "https://github.com/"


@healthy("Fujimoto et al. 2018: the actor moves in every second step, targets are smoothed")
def twin_delayed_actor(_):
    torch.manual_seed(0)
    actor = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1), nn.Tanh())
    critics = nn.ModuleList(
        nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1)) for _ in range(2)
    )
    model = nn.ModuleDict({"actor": actor, "critics": critics})
    slow = copy.deepcopy(model).requires_grad_(False)
    by_actor = torch.optim.Adam(actor.parameters(), lr=1e-3)
    by_critic = torch.optim.Adam(critics.parameters(), lr=1e-3)
    obs, then, action = torch.randn(16, 3), torch.randn(16, 3), torch.rand(16, 1) * 2 - 1
    reward, count = torch.randn(16, 1), [0]

    def step():
        with torch.no_grad():
            noise = (torch.randn(16, 1) * 0.2).clamp(-0.5, 0.5)
            move = (slow["actor"](then) + noise).clamp(-1, 1)
            aim = torch.min(*(q(torch.cat([then, move], 1)) for q in slow["critics"]))
            aim = reward + 0.99 * aim
        loss = sum(F.mse_loss(q(torch.cat([obs, action], 1)), aim) for q in critics)
        by_critic.zero_grad()
        loss.backward()
        by_critic.step()
        if count[0] % 2 == 0:
            by_actor.zero_grad()
            (-critics[0](torch.cat([obs, actor(obs)], 1)).mean()).backward()
            by_actor.step()
            for p, q in zip(slow.parameters(), model.parameters(), strict=True):
                p.lerp_(q, 0.005)
        count[0] += 1
        return loss

    return Program(step, model, [by_actor, by_critic], 4)


@healthy("Mnih et al. 2016, A3C: gradients of a worker are handed to the shared model")
def worker_that_hands_its_gradients_over(_):
    torch.manual_seed(0)
    shared = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    worker = copy.deepcopy(shared)
    optimizer = torch.optim.Adam(shared.parameters(), lr=1e-3)
    obs = torch.randn(6, 4)

    def step():
        worker.load_state_dict(shared.state_dict())
        policy, value = worker(obs).split([2, 1], -1)
        policy = Categorical(logits=policy)
        action = policy.sample()
        advantage = action.float() - value[:, 0]
        loss = -(policy.log_prob(action) * advantage.detach()).mean() + advantage.pow(2).mean()
        worker.zero_grad()
        loss.backward()
        for p, q in zip(worker.parameters(), shared.parameters(), strict=True):
            q._grad = p.grad
        optimizer.step()
        return loss

    return Program(step, shared, optimizer, 3)


@healthy("Hafner et al. 2023: discrete latents, both divergences stopped on one side, free nats")
def world_model_with_free_nats(_):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "encode": nn.Linear(6, 8),
            "prior": nn.Linear(5, 8),
            "core": nn.GRUCell(10, 5),
            "decode": nn.Linear(13, 6),
        }
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    obs, action = torch.randn(4, 3, 6), torch.randn(4, 3, 2)

    def mixed(logits):
        p = 0.99 * logits.view(-1, 2, 4).softmax(-1) + 0.01 / 4
        return Categorical(probs=p)

    def step():
        h, z, loss = torch.zeros(4, 5), torch.zeros(4, 8), 0.0
        for t in range(3):
            h = model["core"](torch.cat([z, action[:, t]], -1), h)
            prior, post = mixed(model["prior"](h)), mixed(model["encode"](obs[:, t]))
            drawn = F.one_hot(post.sample(), 4).float()
            z = (drawn + post.probs - post.probs.detach()).flatten(1)
            still = Categorical(probs=post.probs.detach())
            fixed = Categorical(probs=prior.probs.detach())
            learn = torch.distributions.kl_divergence(still, prior).sum(-1).mean().clamp(min=1e-3)
            keep = torch.distributions.kl_divergence(post, fixed).sum(-1).mean().clamp(min=1.0)
            guess = model["decode"](torch.cat([h, z], -1))
            loss = loss + F.mse_loss(guess, obs[:, t]) + 0.5 * learn + 0.1 * keep
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)
