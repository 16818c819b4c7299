"""The examination, third room: adversaries, agents, optimizers, schedules, checkpoints."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "exam", "https://github.com/"


def gan(d_norm=lambda layer: layer):
    """A small DCGAN in one container."""
    torch.manual_seed(0)
    generator = nn.Sequential(
        nn.ConvTranspose2d(4, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 1, 2, stride=2), nn.Tanh()
    )
    last = nn.Conv2d(6, 1, 3)
    critic = nn.Sequential(
        d_norm(nn.Conv2d(1, 6, 2, stride=2)), nn.LeakyReLU(0.2), last, nn.Flatten()
    )
    return nn.ModuleDict({"generator": generator, "critic": critic})


def names(model, *starts):
    """Parameter names below the given prefixes, as one string."""
    return " ".join(n for n, _ in model.named_parameters() if n.startswith(starts))


@fault(
    SET,
    "severed",
    "detach",
    names(gan(), "generator"),
    GH + "pytorch/examples/issues/116, the detach of the other player kept",
)
def generator_scored_on_a_detached_fake(broken):
    model = gan()
    adam = {
        k: torch.optim.Adam(part.parameters(), lr=2e-4, betas=(0.5, 0.999))
        for k, part in model.items()
    }
    real, z = torch.rand(6, 1, 6, 6) * 2 - 1, torch.randn(6, 4, 1, 1)
    one, zero = torch.ones(6, 1), torch.zeros(6, 1)

    def step():
        made = model["generator"](z)
        fake = made.detach()  # fault
        adam["critic"].zero_grad()
        loss = F.binary_cross_entropy_with_logits(model["critic"](real), one)
        loss = loss + F.binary_cross_entropy_with_logits(model["critic"](fake), zero)
        loss.backward()
        adam["critic"].step()
        adam["generator"].zero_grad()
        score = model["critic"](fake if broken else made)
        fooled = F.binary_cross_entropy_with_logits(score, one)
        fooled.backward()
        adam["generator"].step()
        return fooled

    return Program(step, model, list(adam.values()), 2)


@fault(SET, "nan", "div", "?", GH + "pytorch/pytorch/issues/20192")
def spectral_norm_of_a_zero_convolution(broken):
    def norm(layer):
        if broken:
            nn.init.zeros_(layer.weight)
        return nn.utils.parametrizations.spectral_norm(layer)

    model = gan(norm)
    optimizer = torch.optim.Adam(model["critic"].parameters(), lr=2e-4)
    real, z = torch.rand(6, 1, 6, 6) * 2 - 1, torch.randn(6, 4, 1, 1)

    def step():
        optimizer.zero_grad()
        with torch.no_grad():
            fake = model["generator"](z)
        loss = torch.relu(1 + model["critic"](fake)).mean()  # fault
        loss = loss + torch.relu(1 - model["critic"](real)).mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model["critic"], optimizer)


PPO = "body.weight body.bias pi.weight pi.bias v.weight v.bias"


@fault(SET, "nan", "std var sub div", PPO, GH + "DLR-RM/stable-baselines3/issues/325")
def last_minibatch_of_one_transition(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"body": nn.Linear(4, 8), "pi": nn.Linear(8, 3), "v": nn.Linear(8, 1)})
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4, eps=1e-5)
    n = 9 if broken else 10
    obs, actions = torch.randn(n, 4), torch.randint(0, 3, (n,))
    advantages, returns = torch.randn(n), torch.randn(n)

    def heads(x):
        h = torch.tanh(model["body"](x))
        return torch.distributions.Categorical(logits=model["pi"](h)), model["v"](h)[:, 0]

    with torch.no_grad():
        old = heads(obs)[0].log_prob(actions)

    def step():
        for rows in torch.arange(n).split(4 if broken else 5):
            optimizer.zero_grad()
            policy, value = heads(obs[rows])
            a = advantages[rows]
            a = (a - a.mean()) / (a.std() + 1e-8)  # fault
            ratio = (policy.log_prob(actions[rows]) - old[rows]).exp()
            gain = torch.min(ratio * a, ratio.clamp(0.8, 1.2) * a).mean()
            loss = 0.5 * F.mse_loss(value, returns[rows]) - gain - 0.01 * policy.entropy().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        return loss

    return Program(step, model, optimizer)


@fault(
    SET,
    "severed",
    "normal sample normal_ no_grad",
    "actor.0.weight actor.0.bias actor.2.weight actor.2.bias",
    GH + "kashif/firedup/issues/9",
)
def actor_that_samples_without_reparametrisation(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "actor": nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)),
            "critic": nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)),
        }
    )
    target = copy.deepcopy(model["critic"]).requires_grad_(False)
    adam = {k: torch.optim.Adam(part.parameters(), lr=1e-3) for k, part in model.items()}
    s, a, r, s2 = torch.randn(8, 4), torch.randn(8, 2), torch.randn(8, 1), torch.randn(8, 4)

    def act(state):
        policy = torch.distributions.Normal(model["actor"](state), 0.2)
        return torch.tanh(policy.sample() if broken else policy.rsample())  # fault

    def step():
        with torch.no_grad():
            goal = r + 0.99 * target(torch.cat([s2, act(s2)], 1))
        adam["critic"].zero_grad()
        F.mse_loss(model["critic"](torch.cat([s, a], 1)), goal).backward()
        adam["critic"].step()
        adam["actor"].zero_grad()
        loss = -model["critic"](torch.cat([s, act(s)], 1)).mean()
        loss.backward()
        adam["actor"].step()
        for t, p in zip(target.parameters(), model["critic"].parameters(), strict=True):
            t.data.lerp_(p.data, 0.005)
        return loss

    return Program(step, model, list(adam.values()), 2)


@fault(
    SET,
    "severed",
    "clone detach data deepcopy alias _to_copy",
    "0.weight 0.bias 2.weight 2.bias",
    GH + "dragen1860/MAML-Pytorch/issues/47",
)
def inner_loop_on_a_deep_copy(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x = torch.linspace(-2, 2, 10)[:, None]

    def adapt(support):
        if broken:
            learner = copy.deepcopy(model)  # fault
            inner = torch.optim.SGD(learner.parameters(), lr=0.05)
            F.mse_loss(learner(x), support).backward()
            inner.step()
            return learner(x)
        weights = dict(model.named_parameters())
        loss = F.mse_loss(torch.func.functional_call(model, weights, x), support)
        grads = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        fast = {k: w - 0.05 * g for (k, w), g in zip(weights.items(), grads, strict=True)}
        return torch.func.functional_call(model, fast, x)

    def step():
        optimizer.zero_grad()
        loss = 0.0
        for phase in (0.0, 0.7):
            loss = loss + F.mse_loss(adapt(torch.sin(x + phase)), torch.sin(x + phase))
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "frozen",
    "mul mul_ add_ where step sub_",
    "0.bias 2.bias",
    GH + "Spijkervet/SimCLR/issues/27",
)
def trust_ratio_of_a_zero_bias(broken):
    class LARS(torch.optim.Optimizer):
        def __init__(self, parameters, lr, trust=0.01):
            super().__init__(parameters, {"lr": lr, "trust": trust})

        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    w, g = p.norm(), p.grad.norm()
                    ratio = group["trust"] * w / (g + 1e-9)
                    known = g > 0 if broken else (g > 0) & (w > 0)
                    ratio = torch.where(known, ratio, torch.ones(()))
                    p.add_(p.grad * ratio, alpha=-group["lr"])  # fault

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    for layer in (model[0], model[2]):
        nn.init.zeros_(layer.bias)
    optimizer = LARS(model.parameters(), 0.5)
    x = torch.randn(6, 6)
    views = torch.cat([x + 0.05 * torch.randn(6, 6), x + 0.05 * torch.randn(6, 6)])
    pairs = torch.cat([torch.arange(6, 12), torch.arange(6)])

    def step():
        optimizer.zero_grad()
        z = F.normalize(model(views), dim=1)
        scores = (z @ z.t() / 0.5).fill_diagonal_(float("-inf"))
        loss = F.cross_entropy(scores, pairs)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)
