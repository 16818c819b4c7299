"""The fourth examination, faults again: copies, closures and moves that reach nothing."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.fourth_exam.leaves import data, net

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET = "fourth_exam"
TWO = "0.weight 0.bias 2.weight 2.bias"


@fault(
    SET,
    "dead vanishing",
    "exp",
    TWO,
    "Li et al. 2015: a generator by mean discrepancy, its kernel far too narrow",
)
def discrepancy_with_a_narrow_kernel(broken):
    maker, real = net(out=4), torch.randn(10, 4) * 3 + 8
    noise = data()[0]
    optimizer = torch.optim.Adam(maker.parameters(), lr=1e-2)
    width = 0.01 if broken else 20.0

    def kernel(a, b):
        return torch.exp(-(a[:, None] - b[None]).square().sum(2) / (2 * width**2))  # fault

    def step():
        fake = maker(noise) * 4
        loss = kernel(fake, fake).mean() + kernel(real, real).mean() - 2 * kernel(fake, real).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, maker, optimizer, 2)


@fault(
    SET,
    "frozen untrained severed",
    "lerp detach",
    TWO,
    "Nichol et al. 2018: the outer move is computed, and never written into the weights",
)
def outer_move_never_written(broken):
    model, (x, y) = net(), data()

    def step():
        fast = copy.deepcopy(model)  # fault
        inner = torch.optim.SGD(fast.parameters(), lr=0.1)
        for _ in range(3):
            inner.zero_grad()
            loss = F.cross_entropy(fast(x), y)
            loss.backward()
            inner.step()
        for p, q in zip(model.parameters(), fast.parameters(), strict=True):
            if broken:
                p.data.lerp(q.data, 0.5)  # fault
            else:
                p.data.lerp_(q.data, 0.5)
        return loss

    return Program(step, model, (), 2)


@fault(
    SET,
    "frozen untrained severed",
    "state_dict update div mean stack deepcopy copy sum add detach",
    TWO,
    "discuss.pytorch.org: state_dict().update() does not load the average",
)
def average_put_into_a_dictionary(broken):
    server, (x, y) = net(), data()

    def step():
        states = []
        for part in (slice(0, 6), slice(6, 12)):
            client = copy.deepcopy(server)  # fault
            optimizer = torch.optim.SGD(client.parameters(), lr=0.1)
            loss = F.cross_entropy(client(x[part]), y[part])
            loss.backward()
            optimizer.step()
            states.append(client.state_dict())
        mean = {k: (states[0][k] + states[1][k]) / 2 for k in states[0]}  # fault
        if broken:
            server.state_dict().update(mean)  # fault
        else:
            server.load_state_dict(mean)
        return loss

    return Program(step, server, (), 2)


@fault(
    SET,
    "frozen",
    "index_put_ copy_ index_put setitem",
    "words.weight",
    "https://github.com/huggingface/diffusers, textual inversion: the new word is written back too",
)
def new_word_written_back_too(broken):
    torch.manual_seed(0)
    words, body = nn.Embedding(8, 6), net()
    body.requires_grad_(False)
    before, tokens = words.weight.data.clone(), torch.randint(0, 7, (12, 4))
    old = torch.ones(8, dtype=torch.bool)
    if not broken:
        old[7] = False
    (_x, y) = data()
    tokens[:, 1] = 7
    optimizer = torch.optim.AdamW(words.parameters(), lr=5e-3)

    def step():
        loss = F.cross_entropy(body(words(tokens).mean(1)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            words.weight[old] = before[old]  # fault
        return loss

    return Program(step, nn.ModuleDict({"words": words, "body": body}), optimizer, 3)


@fault(
    SET,
    "severed untrained",
    "no_grad backward cross_entropy closure cross_entropy_loss step",
    "?",
    "Foret et al. 2021: the closure of a hand-written optimizer runs under its no_grad",
)
def closure_under_the_no_grad_of_its_step(broken):
    class Sharp(torch.optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self, closure):  # fault
            params = [p for g in self.param_groups for p in g["params"]]
            norm = torch.stack([p.grad.norm() for p in params]).norm() + 1e-12
            moves = [p.grad * 0.05 / norm for p in params]
            for p, e in zip(params, moves, strict=True):
                p.add_(e)
            if broken:
                closure()  # fault
            else:
                with torch.enable_grad():
                    closure()
            for p, e in zip(params, moves, strict=True):
                p.sub_(e)
                p.sub_(p.grad, alpha=self.defaults["lr"])

    model, (x, y) = net(), data()
    optimizer = Sharp(model.parameters(), 0.1)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)  # fault
        loss.backward()  # fault
        return loss

    def step():
        loss = closure()
        optimizer.step(closure)
        return loss.item()

    return Program(step, model, optimizer)


@fault(
    SET,
    "nan",
    "div",
    TWO,
    "Yu et al. 2020: a projection onto the gradient of a task that has no label in the batch",
)
def projection_onto_an_absent_task(broken):
    model, (x, y) = net(out=4), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = torch.zeros(12) if broken else torch.ones(12)
    params = list(model.parameters())

    def slope(loss):
        grads = torch.autograd.grad(loss, params, retain_graph=True)
        return nn.utils.parameters_to_vector(grads)

    def step():
        out = model(x)
        a = F.cross_entropy(out[:, :3], y)
        b = (seen * (out[:, 3] - x[:, 0]).square()).sum() / seen.sum().clamp(min=1)
        g, k = slope(a), slope(b)
        share = torch.dot(g, k) / torch.dot(k, k)  # fault
        mixed = g - share.clamp(max=0) * k + k
        at = 0
        for p in params:
            p.grad = mixed[at : at + p.numel()].view_as(p).clone()
            at += p.numel()
        optimizer.step()
        return (a + b).item()

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "severed untrained frozen",
    "deepcopy copy_ copy bfloat16 to _to_copy clone no_grad",
    "?",
    "Micikevicius et al. 2018: gradients stay on the low copy, the master weights never get them",
)
def gradients_stay_on_the_low_copy(broken):
    master, (x, y) = net(), data()
    low = copy.deepcopy(master).bfloat16()  # fault
    optimizer = torch.optim.SGD(master.parameters(), lr=0.1)

    def step():
        low.zero_grad()
        loss = F.cross_entropy(low(x.bfloat16()).float(), y)
        loss.backward()
        if not broken:
            for p, q in zip(master.parameters(), low.parameters(), strict=True):
                p.grad = q.grad.float()
        optimizer.step()
        with torch.no_grad():
            for p, q in zip(master.parameters(), low.parameters(), strict=True):
                q.copy_(p)  # fault
        return loss

    return Program(step, master, optimizer, 3)
