"""The examination, controls of training methods: two passes, skips, copies, reversals."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
healthy = corpus.healthy


def classifier(inside=6, hidden=10, out=3):
    """A small network, always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inside, hidden), nn.Tanh(), nn.Linear(hidden, out))


@healthy("Finn et al. 2017, first order; Nichol et al. 2018: gradients carried over by hand")
def first_order_meta_learning(_):
    model = classifier(1, 8, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x = torch.linspace(-2, 2, 10)[:, None]

    def step():
        optimizer.zero_grad()
        total = 0.0
        for phase in (0.0, 0.7):
            learner, y = copy.deepcopy(model), torch.sin(x + phase)
            inner = torch.optim.SGD(learner.parameters(), lr=0.05)
            for _ in range(2):
                inner.zero_grad()
                F.mse_loss(learner(x), y).backward()
                inner.step()
            loss = F.mse_loss(learner(x), y)
            grads = torch.autograd.grad(loss, list(learner.parameters()))
            for p, g in zip(model.parameters(), grads, strict=True):
                p.grad = g.clone() if p.grad is None else p.grad + g
            total += loss.item()
        optimizer.step()
        return total

    return Program(step, model, optimizer, 2)


@healthy("Foret et al. 2021: climb, clear the gradients, come back, descend")
def sharpness_aware_minimisation(_):
    model = classifier()
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(12, 6), torch.randint(0, 3, (12,))

    def step():
        F.cross_entropy(model(x), y).backward()
        with torch.no_grad():
            size = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
            moves = [p.grad * (0.05 / (size + 1e-12)) for p in model.parameters()]
            for p, move in zip(model.parameters(), moves, strict=True):
                p.add_(move)
        base.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        with torch.no_grad():
            for p, move in zip(model.parameters(), moves, strict=True):
                p.sub_(move)
        base.step()
        base.zero_grad()
        return loss

    return Program(step, model, base, 2)


@healthy("torch.amp: the first scale is too large, the step is skipped, the scale comes down")
def scaler_that_skips_its_first_step(_):
    model = classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, backoff_factor=2.0**-16)
    x, y = torch.randn(12, 6), torch.randint(0, 3, (12,))

    def step():
        for rows in torch.arange(12).split(6):
            with torch.autocast("cpu", torch.float16):
                logits = model(x[rows])
            loss = F.cross_entropy(logits.float(), y[rows]) / 2
            scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return loss

    return Program(step, model, optimizer, 3)


@healthy("Ganin et al. 2016: a reversed gradient whose weight starts at zero")
def adversarial_domains_from_a_weight_of_zero(_):
    class Reverse(torch.autograd.Function):
        @staticmethod
        def forward(ctx, h, weight):
            ctx.weight = weight
            return h.view_as(h)

        @staticmethod
        def backward(ctx, grad):
            return -ctx.weight * grad, None

    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"body": nn.Linear(6, 8), "label": nn.Linear(8, 3), "domain": nn.Linear(8, 2)}
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y, domain = torch.randn(10, 6), torch.randint(0, 3, (10,)), torch.arange(10) % 2
    count = [0]

    def step():
        optimizer.zero_grad()
        h = torch.tanh(model["body"](x))
        loss = F.cross_entropy(model["label"](h[domain == 0]), y[domain == 0])
        reversed_h = Reverse.apply(h, min(1.0, count[0] / 2))
        loss = loss + F.cross_entropy(model["domain"](reversed_h), domain)
        loss.backward()
        optimizer.step()
        count[0] += 1
        return loss

    return Program(step, model, optimizer, 2)


@healthy("van den Oord et al. 2017: straight-through codes, two stopped gradients, unused codes")
def vector_quantised_autoencoder(_):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"encode": nn.Linear(6, 2), "codes": nn.Embedding(16, 2), "decode": nn.Linear(2, 6)}
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x = torch.randn(8, 6)

    def step():
        optimizer.zero_grad()
        z = model["encode"](x)
        nearest = torch.cdist(z.detach(), model["codes"].weight.detach()).argmin(1)
        q = model["codes"](nearest)
        loss = F.mse_loss(q, z.detach()) + 0.25 * F.mse_loss(z, q.detach())
        loss = loss + F.mse_loss(model["decode"](z + (q - z).detach()), x)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Madry et al. 2018: an inner attack by signs, whose gradients on the model are dropped")
def adversarial_training_by_projected_signs(_):
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(12, 6), torch.randint(0, 3, (12,))

    def step():
        moved = x + 0.1 * (2 * torch.rand_like(x) - 1)
        for _ in range(2):
            moved = moved.detach().requires_grad_()
            F.cross_entropy(model(moved), y).backward()
            moved = x + (moved + 0.05 * moved.grad.sign() - x).clamp(-0.1, 0.1)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(moved.detach()), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Chen, He 2021: two branches, each stopped once, one encoder, a projector without a bias")
def siamese_networks_with_stopped_branches(_):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "encode": nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU()),
            "project": nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8, affine=False)),
            "predict": nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8)),
        }
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    x = torch.randn(16, 6)

    def step():
        optimizer.zero_grad()
        views = [x + 0.1 * torch.randn_like(x) for _ in range(2)]
        z = [model["project"](model["encode"](view)) for view in views]
        p = [model["predict"](one) for one in z]
        loss = -F.cosine_similarity(p[0], z[1].detach()).mean() / 2
        loss = loss - F.cosine_similarity(p[1], z[0].detach()).mean() / 2
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Hu et al. 2021: frozen bfloat16 weights, an adapter that starts at zero")
def adapters_on_a_frozen_half_precision_base(_):
    class Adapted(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base = base.to(torch.bfloat16).requires_grad_(False)
            self.a = nn.Parameter(torch.randn(2, base.in_features) * 0.1)
            self.b = nn.Parameter(torch.zeros(base.out_features, 2))

        def forward(self, x):
            return self.base(x.bfloat16()).float() + x @ self.a.t() @ self.b.t()

    model = classifier()
    for number in (0, 2):
        model[number] = Adapted(model[number])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    x, y = torch.randn(12, 6), torch.randint(0, 3, (12,))

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)
