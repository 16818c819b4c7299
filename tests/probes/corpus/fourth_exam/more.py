"""The fourth examination, seventh room: loops within loops."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.fourth_exam.leaves import data, net

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy


@healthy("docs.pytorch.org, neural style tutorial: a picture by LBFGS, clamped inside the closure")
def picture_clamped_inside_the_closure(_):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
    body.requires_grad_(False)

    def gram(h):
        h = h.flatten(2)
        return h @ h.transpose(1, 2) / h.numel()

    content, style = torch.rand(1, 1, 9, 9), torch.rand(1, 1, 9, 9)
    wanted, look = body(content).detach(), gram(body(style)).detach()
    picture = content.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([picture], max_iter=4)

    def step():
        def closure():
            with torch.no_grad():
                picture.clamp_(0, 1)
            optimizer.zero_grad()
            h = body(picture)
            loss = 1e4 * F.mse_loss(gram(h), look) + F.mse_loss(h, wanted)
            loss.backward()
            return loss

        loss = optimizer.step(closure)
        with torch.no_grad():
            picture.clamp_(0, 1)
        return loss.item()

    return Program(step, body, optimizer, 3)


@healthy("Ren et al. 2018: samples weighed by the slope at weights of zero, clamped, normalised")
def samples_weighed_by_a_slope_at_zero(_):
    model, (x, y) = net(), data()
    y = torch.cat([y[:6], (y[6:] + 1) % 3])
    clean, truth = data(20)[0][12:], data(20)[1][12:]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        weights = dict(model.named_parameters())
        eps = torch.zeros(12, requires_grad=True)
        cost = F.cross_entropy(functional_call(model, weights, x), y, reduction="none")
        slopes = torch.autograd.grad((eps * cost).sum(), list(weights.values()), create_graph=True)
        moved = {n: p - 0.1 * g for (n, p), g in zip(weights.items(), slopes, strict=True)}
        meta = F.cross_entropy(functional_call(model, moved, clean), truth)
        fair = torch.clamp(-torch.autograd.grad(meta, eps)[0], min=0)
        total = fair.sum()
        fair = fair / (total + (total == 0).float())
        optimizer.zero_grad()
        loss = (F.cross_entropy(model(x), y, reduction="none") * fair).sum()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)


@healthy("Liu et al. 2019: choices learnt by differences, weights pushed both ways and put back")
def choices_learnt_by_differences(_):
    torch.manual_seed(0)
    paths = nn.ModuleList(
        [nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Identity()]
    )
    choice, read = nn.Parameter(1e-3 * torch.randn(3)), nn.Linear(6, 3)
    weights = [*paths.parameters(), *read.parameters()]
    ow = torch.optim.SGD(weights, lr=0.05, momentum=0.9)
    oc = torch.optim.Adam([choice], lr=1e-2)
    (x, y), (v, u) = data(), (data(20)[0][12:], data(20)[1][12:])

    def cost(a, b):
        mixed = sum(c * p(a) for c, p in zip(choice.softmax(0), paths, strict=True))
        return F.cross_entropy(read(mixed), b)

    def push(vectors, far):
        for p, d in zip(weights, vectors, strict=True):
            p.data.add_(d, alpha=far)

    def step():
        both = torch.autograd.grad(cost(v, u), [choice, *weights])
        slope, vectors = both[0], both[1:]
        eps = 0.01 / torch.cat([d.flatten() for d in vectors]).norm().item()
        push(vectors, eps)
        up = torch.autograd.grad(cost(x, y), choice)[0]
        push(vectors, -2 * eps)
        down = torch.autograd.grad(cost(x, y), choice)[0]
        push(vectors, eps)
        choice.grad = slope - 0.05 * (up - down) / (2 * eps)
        oc.step()
        ow.zero_grad()
        loss = cost(x, y)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 5)
        ow.step()
        return loss.item()

    models = {"paths": paths, "read": read, "choice": nn.ParameterList([choice])}
    return Program(step, models, [ow, oc], 3)


@healthy("Zhu et al. 2019: a picture and its label found from gradients by LBFGS, the net is still")
def picture_found_from_its_gradients(_):
    model, (x, y) = net(), data()
    weights = list(model.parameters())
    true = [g.detach() for g in torch.autograd.grad(F.cross_entropy(model(x[:1]), y[:1]), weights)]
    seen, label = nn.Parameter(torch.randn(1, 6)), nn.Parameter(torch.randn(1, 3))
    optimizer = torch.optim.LBFGS([seen, label], lr=0.5, max_iter=5)

    def step():
        def closure():
            optimizer.zero_grad()
            cost = -(label.softmax(1) * model(seen).log_softmax(1)).sum()
            grads = torch.autograd.grad(cost, weights, create_graph=True)
            gap = sum(((a - b) ** 2).sum() for a, b in zip(grads, true, strict=True))
            gap.backward()
            return gap

        optimizer.step(closure)
        return closure().item()

    return Program(step, nn.ParameterList([seen, label]), optimizer, 3)


@healthy("Zhang et al. 2019: TRADES, a leaf renewed ten times, then KL beside the clean loss")
def trades_with_a_renewed_leaf(_):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
    )
    (x, y), optimizer = data(), torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    kl = nn.KLDivLoss(reduction="sum")

    def step():
        model.eval()
        adv = x.detach() + 0.001 * torch.randn(x.shape).detach()
        for _ in range(5):
            adv.requires_grad_()
            with torch.enable_grad():
                gap = kl(F.log_softmax(model(adv), 1), F.softmax(model(x), 1))
            slope = torch.autograd.grad(gap, [adv])[0]
            adv = adv.detach() + 0.05 * slope.detach().sign()
            adv = torch.min(torch.max(adv, x - 0.2), x + 0.2)
        model.train()
        adv = nn.Parameter(adv, requires_grad=False)
        optimizer.zero_grad()
        out = model(x)
        robust = kl(F.log_softmax(model(adv), 1), F.softmax(out, 1)) / 12
        loss = F.cross_entropy(out, y) + 6 * robust
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Chen et al. 2020, gradient sign dropout: entries of two tasks dropped where they differ")
def entries_dropped_where_tasks_differ(_):
    torch.manual_seed(0)
    body, one, two = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 1)
    model = nn.ModuleDict({"body": body, "one": one, "two": two})
    optimizer, (x, y), count = torch.optim.Adam(model.parameters(), lr=1e-2), data(), [0]

    def step():
        optimizer.zero_grad()
        h = torch.tanh(body(x))
        losses = [F.cross_entropy(one(h), y), F.mse_loss(two(h)[:, 0], x[:, 0])]
        shared = list(body.parameters())
        a, b = (torch.autograd.grad(v, shared, retain_graph=True) for v in losses)
        sum(losses).backward()
        for p, g, k in zip(shared, a, b, strict=True):
            purity = 0.5 * (1 + (g + k) / (g.abs() + k.abs()).clamp_min(1e-12))
            keep = purity > torch.rand_like(purity)
            p.grad.copy_(
                torch.where(keep, g.clamp(min=0) + k.clamp(min=0), g.clamp(max=0) + k.clamp(max=0))
            )
        if count[0] == 1:  # the second head rests for one step
            two.weight.grad = two.bias.grad = None
        count[0] += 1
        optimizer.step()
        return sum(losses).item()

    return Program(step, model, optimizer, 3)


@healthy("Weights tied by copies: after each step the decoder reads the transposed encoder")
def decoder_that_is_copied_from_the_encoder(_):
    torch.manual_seed(0)
    enc, dec = nn.Linear(6, 4), nn.Linear(4, 6)
    dec.weight.data = enc.weight.data.t().clone()
    dec.weight.requires_grad_(False)
    model = nn.ModuleDict({"enc": enc, "dec": dec})
    x = data()[0]
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(dec(torch.tanh(enc(x))), x)
        loss.backward()
        optimizer.step()
        dec.weight.data.copy_(enc.weight.data.t())
        return loss

    return Program(step, model, optimizer, 3)


@healthy("Welling, Teh 2011: noise beside each update, samples of the weights kept for averages")
def noise_beside_each_update(_):
    model, (x, y) = net(), data()
    kept, count = [], [0]

    def step():
        count[0] += 1
        rate = 0.02 * count[0] ** -0.5
        rows = torch.randperm(12)[:6]
        loss = 2 * F.cross_entropy(model(x[rows]), y[rows], reduction="sum")
        loss = loss + 0.5 * sum(p.pow(2).sum() for p in model.parameters())
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.data.add_(-0.5 * rate * p.grad.data + 0.1 * rate**0.5 * torch.randn_like(p))
        kept.append([p.detach().clone() for p in model.parameters()])
        now = [p.data.clone() for p in model.parameters()]
        with torch.no_grad():
            for p, *old in zip(model.parameters(), *kept, strict=True):
                p.copy_(torch.stack(old).mean(0))
            model(x).softmax(1)
            for p, back in zip(model.parameters(), now, strict=True):
                p.copy_(back)
        return loss.item()

    return Program(step, model, (), 3)
