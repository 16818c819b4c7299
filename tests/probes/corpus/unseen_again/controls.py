"""The fifth unseen set, controls."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.built.births import linear
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
healthy = corpus.healthy


@healthy("Velickovic et al. 2018: a softmax per node, its largest score found from minus infinity")
def softmax_of_each_node(_):
    torch.manual_seed(0)
    model, x = nn.ModuleDict({"value": nn.Linear(4, 3), "score": nn.Linear(6, 1)}), torch.rand(5, 4)
    source, target = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 1, 2, 2])

    def step():
        h = model.value(x)
        score = F.leaky_relu(model.score(torch.cat([h[source], h[target]], 1)))[:, 0]
        top = torch.full((5,), float("-inf")).scatter_reduce(0, target, score.detach(), "amax")
        size = torch.exp(score - top[target])
        total = torch.zeros(5).index_add(0, target, size)
        share = size / (total[target] + 1e-16)
        return (
            (torch.zeros(5, 3).index_add(0, target, share[:, None] * h[source]) - 1).square().mean()
        )

    return Program(step, model)


@healthy("Bengio et al. 2015: a decoder that reads its own best guess")
def decoder_that_reads_its_own_guess(_):
    torch.manual_seed(0)
    parts = {"words": nn.Embedding(5, 4), "cell": nn.GRUCell(4, 4), "read": nn.Linear(4, 5)}
    model, goal = nn.ModuleDict(parts), torch.tensor([[1, 2, 3], [4, 0, 2]])

    def step():
        state, word, loss = torch.zeros(2, 4), torch.zeros(2, dtype=torch.long), 0.0
        for moment in range(3):
            state = model.cell(model.words(word), state)
            scores = model.read(state)
            loss = loss + F.cross_entropy(scores, goal[:, moment])
            word = scores.argmax(1)
        return loss

    return Program(step, model)


@healthy("torch.nn.functional.pdist: two rows that are the same")
def pairwise_distances_with_a_twin(_):
    model, x = linear(4, 2), torch.rand(5, 4)
    x[3] = x[0]
    return Program(lambda: (F.pdist(model(x)) - 1).square().mean(), model)


@healthy("Foret et al. 2021: up the slope, down the slope, and back")
def sharpness_aware_steps(_):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)), torch.rand(6, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step():
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        with torch.no_grad():
            size = torch.stack([p.grad.norm() for p in model.parameters()]).norm() + 1e-12
            moves = [0.05 * p.grad / size for p in model.parameters()]
            for p, move in zip(model.parameters(), moves, strict=True):
                p.add_(move)
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        with torch.no_grad():
            for p, move in zip(model.parameters(), moves, strict=True):
                p.sub_(move)
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Lester et al. 2021: a frozen model and a prompt that is trained")
def prompt_before_a_frozen_model(_):
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    model = nn.ModuleDict({"words": nn.Embedding(7, 4), "block": block, "read": nn.Linear(4, 3)})
    model.requires_grad_(False)
    model.prompt = nn.Parameter(torch.randn(2, 4))
    optimizer, text = (
        torch.optim.AdamW([model.prompt], lr=0.1),
        torch.tensor([[1, 2, 3], [4, 5, 6]]),
    )

    def step():
        optimizer.zero_grad()
        h = torch.cat([model.prompt.expand(2, -1, -1), model.words(text)], 1)
        loss = F.cross_entropy(model.read(model.block(h)[:, 0]), torch.tensor([0, 2]))
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Yu et al. 2020: gradients of two tasks that are projected and written by hand")
def gradients_of_two_tasks_projected(_):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)), torch.rand(8, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def step():
        leaves = list(model.parameters())
        errors = (model(x) - torch.tensor([1.0, -1.0])).square().mean(0)
        slopes = [torch.autograd.grad(e, leaves, retain_graph=True) for e in errors]
        flat = [torch.cat([s.flatten() for s in one]) for one in slopes]
        overlap = torch.dot(flat[0], flat[1]).clamp(max=0) / flat[1].square().sum()
        for leaf, a, b in zip(leaves, *slopes, strict=True):
            leaf.grad = a - overlap * b + b
        optimizer.step()
        return errors.sum().detach()

    return Program(step, model, optimizer, 2)


@healthy("Song et al. 2019: sliced score matching, two derivatives of a network")
def sliced_score_matching(_):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 6), nn.Softplus(), nn.Linear(6, 1)), torch.rand(6, 3)
    way = torch.randn(6, 3)

    def step():
        point = x.clone().requires_grad_(True)
        (score,) = torch.autograd.grad(-model(point).sum(), point, create_graph=True)
        (bend,) = torch.autograd.grad((score * way).sum(), point, create_graph=True)
        return ((bend * way).sum(1) + 0.5 * score.square().sum(1)).mean()

    return Program(step, model)


@healthy("Du, Mordatch 2019: samples that walk down an energy, and a difference of energies")
def samples_that_walk_down_an_energy(_):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 6), nn.SiLU(), nn.Linear(6, 1)), torch.rand(6, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def step():
        walk = torch.rand(6, 3)
        for _ in range(3):
            walk.requires_grad_(True)
            (slope,) = torch.autograd.grad(model(walk).sum(), walk)
            walk = (walk - 0.1 * slope + 0.01 * torch.randn(6, 3)).detach()
        optimizer.zero_grad()
        real, fake = model(x), model(walk)
        loss = (real - fake).mean() + 0.1 * (real.square() + fake.square()).mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy(
    "Lillicrap et al. 2016: the actor's loss leaves gradients on the critic, which are dropped"
)
def actor_that_learns_through_a_critic(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"actor": nn.Linear(4, 2), "critic": nn.Linear(6, 1)})
    one = torch.optim.Adam(model.actor.parameters(), lr=0.01)
    two = torch.optim.Adam(model.critic.parameters(), lr=0.01)
    state, taken, gain = torch.rand(6, 4), torch.rand(6, 2), torch.rand(6, 1)

    def step():
        one.zero_grad()
        (-model.critic(torch.cat([state, torch.tanh(model.actor(state))], 1)).mean()).backward()
        one.step()
        two.zero_grad()
        loss = F.mse_loss(model.critic(torch.cat([state, taken], 1)), gain)
        loss.backward()
        two.step()
        return loss

    return Program(step, model, (one, two), 2)


@healthy("A table with gaps: a flag for each, and zeros in their place")
def gaps_filled_with_zeros_and_flags(_):
    model, x = linear(8, 2), torch.rand(6, 4)
    x[1, 2] = x[4, 0] = float("nan")

    def step():
        gap = x.isnan()
        return (model(torch.cat([x.nan_to_num(0.0), gap.float()], 1)) - 1).square().mean()

    return Program(step, model)


@healthy("torch.distributions.Categorical: actions that are forbidden by minus infinity")
def forbidden_actions_of_a_policy(_):
    model, x = linear(4, 3), torch.rand(6, 4)
    banned = torch.tensor([False, True, False])

    def step():
        policy = torch.distributions.Categorical(logits=model(x).masked_fill(banned, -torch.inf))
        action = policy.sample()
        gain = torch.linspace(-1, 1, 6)
        return -(policy.log_prob(action) * gain + 0.01 * policy.entropy()).mean()

    return Program(step, model)


@healthy("Ulyanov et al. 2016: a bias that the norm of each picture takes away")
def bias_before_an_instance_norm(_):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.InstanceNorm2d(3), nn.ReLU(), nn.Conv2d(3, 1, 3))
    x = torch.rand(2, 1, 8, 8)
    return Program(lambda: (model(x) - 1).square().mean(), model)


@healthy("A sentence of one word: its only score has nothing to be weighed against")
def sentence_of_one_word_in_one_step(_):
    torch.manual_seed(0)
    model = nn.MultiheadAttention(4, 2, batch_first=True)
    optimizer, count = torch.optim.SGD(model.parameters(), lr=0.1), [0]

    def step():
        x = torch.rand(2, 1 + 3 * (count[0] % 2), 4)
        count[0] += 1
        optimizer.zero_grad()
        loss = (model(x, x, x)[0] - 1).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)
