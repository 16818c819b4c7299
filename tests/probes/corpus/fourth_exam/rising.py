"""The fourth examination, fifth room: losses that rise for good reasons."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.fourth_exam.leaves import data, net

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy


@healthy("Bowman et al. 2016: the weight of the KL rises from zero, the cost summed over pixels")
def weight_of_the_kl_that_rises(_):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"enc": nn.Linear(16, 8), "mu": nn.Linear(8, 2), "logvar": nn.Linear(8, 2)}
    )
    model["dec"] = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 16))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, count = (torch.rand(8, 16) > 0.5).float(), [0]

    def step():
        h = F.relu(model["enc"](x))
        mu, logvar = model["mu"](h) * 3, model["logvar"](h)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        cost = F.binary_cross_entropy_with_logits(model["dec"](z), x, reduction="sum")
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum()
        loss = cost + count[0] * 4 * kl
        count[0] += 1
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 6)


@healthy("Bengio et al. 2009: sequences that grow twofold in length, losses summed over time")
def sequences_that_grow(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"rnn": nn.LSTM(2, 6, batch_first=True), "read": nn.Linear(6, 1)})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    length = [1]

    def step():
        x = torch.rand(4, length[0], 2) * 2
        y = x.sum(2, keepdim=True).cumsum(1)
        out, _ = model["rnn"](x)
        loss = F.mse_loss(model["read"](out), y, reduction="sum")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        length[0] *= 2
        return loss

    return Program(step, model, optimizer, 5)


@healthy("Nowozin et al. 2016: a bound on mutual information is climbed with maximize=True")
def bound_that_is_climbed(_):
    model, (x, _y) = net(out=4), data()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2, maximize=True)

    def step():
        optimizer.zero_grad()
        a = F.normalize(model(x), dim=1)
        b = F.normalize(model(x + 0.05 * torch.randn_like(x)), dim=1)
        bound = F.log_softmax(a @ b.t() / 0.2, 1).diagonal().mean() + torch.tensor(12.0).log()
        bound.backward()
        optimizer.step()
        return bound

    return Program(step, model, optimizer, 8)


@healthy("Williams 1992: summed returns of episodes that last longer as the policy improves")
def returns_of_longer_episodes(_):
    torch.manual_seed(0)
    policy = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(policy.parameters(), lr=2e-2)
    count = [0]

    def step():
        count[0] += 1
        state, logs, rewards = torch.zeros(2), [], []
        for _ in range(3 * count[0]):
            law = torch.distributions.Categorical(logits=policy(state))
            action = law.sample()
            logs.append(law.log_prob(action))
            state = 0.9 * state + torch.tensor([0.3, -0.1]) * (2 * action - 1)
            rewards.append(1.0 - state.abs().sum().item() * 0.1)
        gains, total = [], 0.0
        for r in reversed(rewards):
            total = r + 0.99 * total
            gains.insert(0, total)
        loss = -(torch.stack(logs) * torch.tensor(gains)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, policy, optimizer, 6)


@healthy("Goodfellow et al. 2014: the generator's loss rises while the critic wins, by BCE")
def generator_whose_loss_rises(_):
    torch.manual_seed(0)
    maker = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 4))
    judge = nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    om = torch.optim.Adam(maker.parameters(), lr=2e-4, betas=(0.5, 0.999))
    oj = torch.optim.Adam(judge.parameters(), lr=2e-2, betas=(0.5, 0.999))
    bce = nn.BCEWithLogitsLoss()
    yes, no, real = torch.ones(8, 1), torch.zeros(8, 1), torch.randn(8, 4) + 2

    def step():
        fake = maker(torch.randn(8, 2))
        judge.zero_grad()
        bce(judge(real), yes).backward()
        bce(judge(fake.detach()), no).backward()
        oj.step()
        maker.zero_grad()
        loss = bce(judge(fake), yes)
        loss.backward()
        om.step()
        return loss

    return Program(step, [maker, judge], [om, oj], 10)


@healthy(
    "Madry et al. 2018 as a universal noise: one perturbation ascends in a box, the net is fixed"
)
def universal_noise_that_ascends(_):
    model, (x, y) = net(), data()
    model.requires_grad_(False)
    noise = nn.Parameter(torch.zeros(1, 6))
    optimizer = torch.optim.SGD([noise], lr=0.5)

    def step():
        optimizer.zero_grad()
        loss = -F.cross_entropy(model(x + noise), y)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            noise.data.clamp_(-0.3, 0.3)
        return -loss

    return Program(step, nn.ParameterList([noise]), optimizer, 6)


@healthy("Kirkpatrick et al. 2017: a second task, old weights held by squared slopes of the first")
def old_weights_held_for_a_second_task(_):
    model, (x, y) = net(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    state = {"n": 0, "held": None}

    def fisher():
        total = [torch.zeros_like(p) for p in model.parameters()]
        for i in range(len(x)):
            loss = F.nll_loss(F.log_softmax(model(x[i : i + 1]), 1), y[i : i + 1])
            for t, g in zip(
                total, torch.autograd.grad(loss, list(model.parameters())), strict=True
            ):
                t += g.detach() ** 2 / len(x)
        return [(f, p.detach().clone()) for f, p in zip(total, model.parameters(), strict=True)]

    def step():
        if state["n"] == 3:
            state["held"] = fisher()
        state["n"] += 1
        inputs, target = (x, y) if state["held"] is None else (x.flip(1), (y + 1) % 3)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), target)
        if state["held"]:
            for p, (f, old) in zip(model.parameters(), state["held"], strict=True):
                loss = loss + 5 * (f * (p - old) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 6)


@healthy("A schedule that switches the reduction: means in the warm-up, sums over more data later")
def reduction_that_is_switched(_):
    torch.manual_seed(0)
    model, x = nn.Linear(5, 1), torch.randn(400, 5)
    y = x @ torch.tensor([[1.0], [2.0], [0.0], [-1.0], [3.0]]) * 4
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, k / 3))
    count = [0]

    def step():
        reduction = "mean" if count[0] < 2 else "sum"
        n = 20 * 2 ** count[0]
        count[0] += 1
        optimizer.zero_grad()
        loss = F.mse_loss(model(x[:n]), y[:n], reduction=reduction)
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss

    return Program(step, model, optimizer, 5)


@healthy(
    "Rafailov et al. 2023: preferences over a frozen reference, begun at log 2, rewards logged"
)
def preferences_over_a_frozen_reference(_):
    torch.manual_seed(0)
    policy = nn.Sequential(nn.Embedding(12, 6), nn.Linear(6, 12))
    reference = copy.deepcopy(policy).eval().requires_grad_(False)
    good, bad = torch.randint(0, 12, (4, 7)), torch.randint(0, 12, (4, 7))
    mask = torch.arange(6) < torch.tensor([[6], [3], [5], [2]])
    optimizer = torch.optim.RMSprop(policy.parameters(), lr=5e-3)

    def score(model, tokens):
        logs = model(tokens[:, :-1]).log_softmax(-1).gather(2, tokens[:, 1:, None])[..., 0]
        return logs.masked_fill(~mask, 0).sum(1)

    def step():
        with torch.no_grad():
            ref = score(reference, good) - score(reference, bad)
        now = score(policy, good) - score(policy, bad)
        loss = -F.logsigmoid(0.1 * (now - ref)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return {"loss": loss, "margin": (now - ref).detach().mean().item()}

    return Program(step, policy, optimizer, 3)
