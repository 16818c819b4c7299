"""The second examination: pairs and players that are well."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.second_exam.contrast import encoder

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "second_exam", "https://github.com/"


@healthy("He et al. 2020; Khosla et al. 2020: a queue, a slow encoder, anchors without a partner")
def momentum_contrast_with_labels(_):
    query = encoder()
    key = copy.deepcopy(query).requires_grad_(False)
    optimizer = torch.optim.SGD(query.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    queue, owner = F.normalize(torch.randn(12, 8), dim=1), torch.full((12,), -1)
    x, y, head = torch.randn(4, 10), torch.tensor([0, 1, 1, 2]), [0]

    def step():
        with torch.no_grad():
            for slow, fast in zip(key.parameters(), query.parameters(), strict=True):
                slow.lerp_(fast, 0.001)
            k = F.normalize(key(x + 0.1 * torch.randn_like(x)), dim=1)
        q = F.normalize(query(x + 0.1 * torch.randn_like(x)), dim=1)
        bank, labels = torch.cat([k, queue.clone()]), torch.cat([y, owner])
        logits = q @ bank.t() / 0.07
        logits = logits.masked_fill((labels == -1)[None], -torch.inf)  # not filled yet
        same = (y[:, None] == labels[None]) & ~torch.eye(4, 16, dtype=torch.bool)
        some = same.any(1)
        scores = F.log_softmax(logits, dim=1)
        scores = torch.where(same, scores, 0.0)[some].sum(1) / same[some].sum(1)
        loss = -scores.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        queue[head[0] : head[0] + 4], owner[head[0] : head[0] + 4] = k, y
        head[0] = (head[0] + 4) % 12
        return loss

    return Program(step, query, optimizer, 3)


@healthy("Karras et al. 2020: a penalty in every fourth step only, an average of the generator")
def lazy_penalty_and_averaged_generator(_):
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(0.2), nn.Linear(8, 2))
    critic = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    average = copy.deepcopy(generator).requires_grad_(False)
    model = nn.ModuleDict({"generator": generator, "critic": critic, "average": average})
    g = torch.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.0, 0.99))
    d = torch.optim.Adam(critic.parameters(), lr=2e-3, betas=(0.0, 0.99))
    data, count = torch.randn(8, 2) + 3, [0]

    def step():
        critic.requires_grad_(False)
        g.zero_grad(set_to_none=True)
        F.softplus(-critic(generator(torch.randn(8, 3)))).mean().backward()
        g.step()
        critic.requires_grad_(True)
        d.zero_grad(set_to_none=True)
        fake = generator(torch.randn(8, 3)).detach()
        loss = F.softplus(-critic(data)).mean() + F.softplus(critic(fake)).mean()
        loss.backward()
        d.step()
        if count[0] % 4 == 0:
            d.zero_grad(set_to_none=True)
            real = data.clone().requires_grad_(True)
            (slope,) = torch.autograd.grad(critic(real).sum(), real, create_graph=True)
            (slope.square().sum(1).mean() * 0.5 * 10 * 4).backward()
            d.step()
        with torch.no_grad():
            for p, q in zip(average.parameters(), generator.parameters(), strict=True):
                p.copy_(q.lerp(p, 0.995))
        count[0] += 1
        return loss

    return Program(step, model, [g, d], 5)
