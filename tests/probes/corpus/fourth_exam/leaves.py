"""The fourth examination, first room: tensors that are cut off and made leaves again."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy


def net(out=3, hidden=8, act=nn.Tanh):
    """A small network, always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, hidden), act(), nn.Linear(hidden, out))


def data(n=12):
    """Inputs and classes."""
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(n, 6, generator=generator)
    return x, torch.randint(0, 3, (n,), generator=generator)


@healthy("Shafahi et al. 2019: adversarial training for free, one noise kept over the replays")
def noise_kept_over_the_replays(_):
    model, (x, y) = net(act=nn.ReLU), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    delta = torch.zeros(12, 6)

    def step():
        for _ in range(3):
            noise = delta.detach().clone().requires_grad_(True)
            loss = F.cross_entropy(model(x + noise), y)
            optimizer.zero_grad()
            loss.backward()
            delta.add_(0.1 * noise.grad.sign()).clamp_(-0.2, 0.2)
            optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)


@healthy("discuss.pytorch.org/t/500: truncated backpropagation with k1 < k2, states as leaves")
def states_as_leaves_between_windows(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"cell": nn.GRUCell(3, 5), "read": nn.Linear(5, 1)})
    x, y = torch.randn(9, 4, 3), torch.randn(9, 4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)

    def step():
        states = [(None, torch.zeros(4, 5))]
        total = 0.0
        for t in range(9):
            state = states[-1][1].detach()
            state.requires_grad = True
            new = model["cell"](x[t], state)
            states.append((state, new))
            if (t + 1) % 3 == 0:
                loss = F.mse_loss(model["read"](new), y[t])
                optimizer.zero_grad()
                loss.backward(retain_graph=True)
                for i in range(1, 4):
                    before = states[-i][0]
                    if before.grad is None or i == 4 or states[-i - 1][0] is None:
                        break
                    states[-i - 1][1].backward(before.grad, retain_graph=True)
                optimizer.step()
                states = [(None, new.detach())]
                total += loss.item()
        return total

    return Program(step, model, optimizer, 2)


@healthy("Du, Mordatch 2019: short chains from a replay buffer, contrastive divergence")
def chains_from_a_replay_buffer(_):
    torch.manual_seed(0)
    energy = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(energy.parameters(), lr=1e-3, betas=(0.0, 0.999))
    real, replay = torch.randn(16, 2) * 0.3 + 1, torch.rand(64, 2) * 2 - 1

    def step():
        rows = torch.randint(0, 64, (16,))
        x = replay[rows].detach()
        x[torch.rand(16) < 0.1] = torch.rand(2) * 2 - 1
        for p in energy.parameters():
            p.requires_grad_(False)
        for _ in range(5):
            x = x.detach().requires_grad_(True)
            slope = torch.autograd.grad(energy(x).sum(), x)[0].clamp(-0.03, 0.03)
            x = x - 10 * slope + 0.005 * torch.randn_like(x)
        for p in energy.parameters():
            p.requires_grad_(True)
        x = x.detach()
        replay[rows] = x
        up, down = energy(real), energy(x)
        loss = up.mean() - down.mean() + 0.1 * (up**2 + down**2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, energy, optimizer, 3)


@healthy("Gao et al. 2021: representations without a graph, their gradients kept, run again")
def gradients_of_representations_cached(_):
    model, (x, _y) = net(out=4), data()
    other = x + 0.1 * torch.randn(12, 6)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def step():
        optimizer.zero_grad()
        chunks = [*x.split(4), *other.split(4)]
        with torch.no_grad():
            reps = [model(chunk) for chunk in chunks]
        reps = [rep.detach().requires_grad_() for rep in reps]
        a, b = torch.cat(reps[:3]), torch.cat(reps[3:])
        scores = F.normalize(a, dim=1) @ F.normalize(b, dim=1).t() / 0.1
        loss = F.cross_entropy(scores, torch.arange(12))
        loss.backward()
        cache = [rep.grad for rep in reps]
        for chunk, slope in zip(chunks, cache, strict=True):
            (model(chunk) * slope).sum().backward()
        optimizer.step()
        return loss.detach()

    return Program(step, model, optimizer, 2)


@healthy("Gloeckle et al. 2024: several token heads, one after the other, the trunk only once")
def heads_one_after_the_other(_):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "words": nn.Embedding(10, 8),
            "trunk": nn.Linear(8, 8),
            "heads": nn.ModuleList([nn.Linear(8, 10) for _ in range(3)]),
        }
    )
    tokens = torch.randint(0, 10, (4, 9))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step():
        optimizer.zero_grad()
        z = torch.tanh(model["trunk"](model["words"](tokens[:, :6])))
        d = z.detach()
        d.requires_grad = True
        total = 0
        for i, head in enumerate(model["heads"]):
            loss = F.cross_entropy(head(d).flatten(0, 1), tokens[:, i + 1 : i + 7].flatten())
            loss.backward()
            total += loss.detach()
        z.backward(gradient=d.grad)
        optimizer.step()
        return total

    return Program(step, model, optimizer, 2)


@healthy("Jaderberg et al. 2017: a synthetic gradient for the lower half, learnt from the true one")
def synthetic_gradients(_):
    torch.manual_seed(0)
    low, high, guess = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 8)
    nn.init.zeros_(guess.weight)
    nn.init.zeros_(guess.bias)
    model = nn.ModuleDict({"low": low, "high": high, "guess": guess})
    optimizers = [torch.optim.Adam(m.parameters(), lr=1e-2) for m in (low, high, guess)]
    x, y = data()

    def step():
        for o in optimizers:
            o.zero_grad()
        h = torch.tanh(low(x))
        seen = h.detach().requires_grad_()
        slope = guess(seen.detach())
        h.backward(slope.detach())
        optimizers[0].step()
        loss = F.cross_entropy(high(seen), y)
        loss.backward()
        optimizers[1].step()
        F.mse_loss(slope, seen.grad.detach() * 12).backward()
        optimizers[2].step()
        return loss.detach()

    return Program(step, model, optimizers, 3)


@healthy("Miyato et al. 2018: virtual adversarial training, one power iteration")
def virtual_adversarial_training(_):
    model, (x, y) = net(act=nn.ReLU), data()
    extra = torch.randn(20, 6)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def unit(d):
        return d / (d.norm(dim=1, keepdim=True) + 1e-8)

    def smooth():
        with torch.no_grad():
            wanted = F.softmax(model(extra), 1)
        d = unit(torch.randn_like(extra)).requires_grad_()
        F.kl_div(F.log_softmax(model(extra + 10 * d), 1), wanted, reduction="batchmean").backward()
        d = unit(d.grad)
        model.zero_grad()
        there = F.log_softmax(model(extra + d), 1)
        return F.kl_div(there, wanted, reduction="batchmean")

    def step():
        lds = smooth()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y) + lds
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Mordvintsev et al. 2015: a picture climbs a frozen network by normalised gradients")
def picture_that_climbs_a_frozen_network(_):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3))
    body.requires_grad_(False).eval()
    picture = torch.rand(1, 1, 12, 12, requires_grad=True)

    def step():
        body.zero_grad()
        score = body(picture).norm()
        score.backward()
        with torch.no_grad():
            slope = picture.grad / (picture.grad.abs().mean() + 1e-8)
            picture.add_(slope, alpha=0.05)
            picture.clamp_(0, 1)
        picture.grad.zero_()
        return score.item()

    return Program(step, body, (), 4)


@healthy("Gal et al. 2023: only the new word learns, the other rows are written back each step")
def other_rows_written_back(_):
    torch.manual_seed(0)
    words, body = nn.Embedding(8, 6), net()
    body.requires_grad_(False)
    model = nn.ModuleDict({"words": words, "body": body})
    before, old = words.weight.data.clone(), torch.arange(8) != 7
    tokens, (_x, y) = torch.randint(0, 7, (12, 4)), data()
    tokens[:, 1] = 7
    optimizer = torch.optim.AdamW(words.parameters(), lr=5e-3)

    def step():
        loss = F.cross_entropy(body(words(tokens).mean(1)), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            words.weight[old] = before[old]
        return loss.detach()

    return Program(step, model, optimizer, 3)


@healthy("Bai et al. 2019: a fixed point found without a graph, hung in again with a hook")
def equilibrium_hung_in_with_a_hook(_):
    torch.manual_seed(0)
    inner, enter, read = nn.Linear(5, 5), nn.Linear(6, 5), nn.Linear(5, 3)
    inner.weight.data.mul_(0.5)
    model = nn.ModuleDict({"inner": inner, "enter": enter, "read": read})
    optimizer, (x, y) = torch.optim.Adam(model.parameters(), lr=1e-2), data()

    def solve(f, z):
        for _ in range(25):
            z = f(z)
        return z

    def step():
        optimizer.zero_grad()
        with torch.no_grad():
            z = solve(lambda z: torch.tanh(inner(z) + enter(x)), torch.zeros(12, 5))
        z = torch.tanh(inner(z) + enter(x))
        leaf = z.clone().detach().requires_grad_()
        again = torch.tanh(inner(leaf) + enter(x))
        z.register_hook(
            lambda g: solve(
                lambda u: torch.autograd.grad(again, leaf, u, retain_graph=True)[0] + g, g
            )
        )
        loss = F.cross_entropy(read(z), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Park et al. 2019: codes of each shape as leaves that are made anew for each batch")
def codes_made_leaves_for_each_batch(_):
    torch.manual_seed(0)
    decoder, codes = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6)), torch.randn(12, 4)
    codes.mul_(0.1)
    x, _y = data()
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-2)

    def step():
        rows = torch.randperm(12)[:6]
        z = codes[rows].detach().requires_grad_()
        inner = torch.optim.Adam([z], lr=1e-2)
        loss = F.l1_loss(decoder(z), x[rows].clamp(-1, 1)) + 1e-3 * z.square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        inner.step()
        optimizer.step()
        codes[rows] = z.detach()
        return loss

    return Program(step, decoder, optimizer, 3)
