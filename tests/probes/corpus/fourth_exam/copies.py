"""The fourth examination, ninth room: copies that learn, and updates taken back on purpose."""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.fourth_exam.built import learn
from tests.probes.corpus.fourth_exam.leaves import data, net

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy


@healthy("Cazenavette et al. 2022: pictures learn so that a student follows an expert's path")
def pictures_that_lead_a_student(_):
    expert, (x, y) = net(), data()
    start = [p.detach().clone() for p in expert.parameters()]
    path = torch.optim.SGD(expert.parameters(), lr=0.2)
    for _ in range(5):
        learn(expert, x, y, path)
    target = [p.detach() for p in expert.parameters()]
    names = [n for n, _ in expert.named_parameters()]
    student = net()
    pictures, rate = nn.Parameter(torch.randn(3, 6)), nn.Parameter(torch.tensor(0.1))
    optimizer = torch.optim.SGD([pictures, rate], lr=0.05, momentum=0.5)

    def step():
        weights = [p.clone().requires_grad_(True) for p in start]
        for _ in range(3):
            named = dict(zip(names, weights, strict=True))
            cost = F.cross_entropy(functional_call(student, named, pictures), torch.arange(3))
            slopes = torch.autograd.grad(cost, weights, create_graph=True)
            weights = [w - rate * g for w, g in zip(weights, slopes, strict=True)]
        gap = sum((w - t).square().sum() for w, t in zip(weights, target, strict=True))
        loss = gap / sum((s - t).square().sum() for s, t in zip(start, target, strict=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, nn.ParameterList([pictures, rate]), optimizer, 3)


@healthy("NVIDIA apex, master weights: float leaves learn, the low model is written from them")
def float_leaves_behind_a_low_model(_):
    low, (x, y) = net().bfloat16(), data()
    masters = [p.detach().clone().float().requires_grad_(True) for p in low.parameters()]
    optimizer = torch.optim.SGD(masters, lr=0.1, momentum=0.9)

    def step():
        loss = F.cross_entropy(low(x.bfloat16()).float(), y)
        low.zero_grad()
        (loss * 128.0).backward()
        for master, p in zip(masters, low.parameters(), strict=True):
            if master.grad is None:
                master.grad = torch.empty_like(master)
            master.grad.data.copy_(p.grad.data)
            master.grad.data.div_(128.0)
        optimizer.step()
        for master, p in zip(masters, low.parameters(), strict=True):
            p.data.copy_(master.data)
        return loss

    return Program(step, low, optimizer, 3)


@healthy("One flat leaf: the layers' weights and gradients are windows into it")
def weights_as_windows_into_a_flat_leaf(_):
    model, (x, y) = net(), data()
    flat = nn.Parameter(nn.utils.parameters_to_vector(model.parameters()).detach().clone())
    flat.grad = torch.zeros_like(flat)
    at = 0
    for p in model.parameters():
        p.data = flat.data[at : at + p.numel()].view_as(p)
        p.grad = flat.grad[at : at + p.numel()].view_as(p)
        at += p.numel()
    optimizer = torch.optim.Adam([flat], lr=1e-2)

    def step():
        flat.grad.zero_()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)


@healthy("Boyd et al. 2011: workers with multipliers, the consensus is their mean")
def workers_that_agree_on_a_mean(_):
    common, (x, y) = net(), data()
    workers = [copy.deepcopy(common) for _ in range(2)]
    duals = [[torch.zeros_like(p) for p in w.parameters()] for w in workers]

    def step():
        for k, worker in enumerate(workers):
            optimizer = torch.optim.SGD(worker.parameters(), lr=0.1)
            for _ in range(3):
                optimizer.zero_grad()
                loss = F.cross_entropy(worker(x[k::2]), y[k::2])
                trio = zip(worker.parameters(), common.parameters(), duals[k], strict=True)
                loss = loss + 0.5 * sum((w - c.detach() + u).square().sum() for w, c, u in trio)
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            for i, c in enumerate(common.parameters()):
                own = [list(w.parameters())[i] for w in workers]
                c.copy_(torch.stack([w + d[i] for w, d in zip(own, duals, strict=True)]).mean(0))
                for w, d in zip(own, duals, strict=True):
                    d[i] += w - c
        return loss.item()

    return Program(step, nn.ModuleList([common, *workers]), (), 2)


@healthy(
    "Smith 2017: rates tried upwards until the loss runs away, weights put back, then training"
)
def rates_tried_upwards_then_put_back(_):
    model, (x, y) = net(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    count = [0]

    def find():
        saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        best, rate, losses = float("inf"), 1e-3, []
        for _ in range(30):
            for group in optimizer.param_groups:
                group["lr"] = rate
            losses.append(learn(model, x, y, optimizer).item())
            best = min(best, losses[-1])
            if losses[-1] > 4 * best:
                break
            rate *= 2
        model.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
        return 0.1

    def step():
        count[0] += 1
        if count[0] == 1:
            rate = find()
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.no_grad():
                return F.cross_entropy(model(x), y).item()
        return learn(model, x, y, optimizer).item()

    return Program(step, model, optimizer, 3)


@healthy("Roberts, Tweedie 1996: a proposal along the slope, and most proposals are refused")
def proposals_that_are_refused(_):
    torch.manual_seed(0)
    model, rate = nn.Linear(2, 1), 0.03
    x, taken = torch.randn(30, 2), []
    y = x.sum(1, keepdim=True) + 0.3 * torch.randn(30, 1)
    weights = list(model.parameters())

    def energy():
        u = 5 * F.mse_loss(model(x), y, reduction="sum")
        return u, torch.autograd.grad(u, weights)

    def step():
        before = [p.detach().clone() for p in weights]
        u, g = energy()
        with torch.no_grad():
            for p, d in zip(weights, g, strict=True):
                p.add_(-rate * rate / 2 * d + rate * torch.randn_like(p))
        v, h = energy()
        with torch.no_grad():
            there = [p.clone() for p in weights]
            forth = sum(
                ((b - a + rate**2 / 2 * d) ** 2).sum()
                for a, b, d in zip(before, there, g, strict=True)
            )
            back = sum(
                ((a - b + rate**2 / 2 * d) ** 2).sum()
                for a, b, d in zip(before, there, h, strict=True)
            )
            if torch.rand(()).log() > u - v + (forth - back) / (2 * rate**2):
                for p, old in zip(weights, before, strict=True):
                    p.copy_(old)
            else:
                taken.append(1)
        return u.item()

    return Program(step, model, (), 12)


@healthy("Daubechies et al. 2004: soft thresholds keep most weights at the zero they began with")
def thresholds_that_keep_weights_at_zero(_):
    torch.manual_seed(0)
    model, x = nn.Linear(8, 1, bias=False), torch.randn(40, 8)
    y = 3 * x[:, :1] - 2 * x[:, 4:5] + 0.1 * torch.randn(40, 1)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss = F.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            w = model.weight
            w.copy_(w.sign() * (w.abs() - 0.1).clamp(min=0))
        return loss + 0.1 * model.weight.abs().sum()

    return Program(step, model, optimizer, 4)


@healthy("Loshchilov et al. 2024: rows of unit length after every step, scales that are learnt")
def rows_of_unit_length_after_every_step(_):
    model, (x, y) = net(), data()
    scale = nn.Parameter(torch.full((3,), 4.0))
    optimizer = torch.optim.Adam([*model.parameters(), scale], lr=1e-2)

    def normalise():
        for m in (model[0], model[2]):
            m.weight.data.copy_(F.normalize(m.weight.data, dim=1))

    normalise()

    def step():
        loss = F.cross_entropy(scale * model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        normalise()
        return loss

    return Program(step, [model, nn.ParameterList([scale])], optimizer, 3)


@healthy("Maddox et al. 2019: weights drawn around a mean for a look, and put back by .data")
def weights_drawn_for_a_look(_):
    model, (x, y) = net(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = [torch.zeros_like(p) for p in model.parameters()]
    second = [torch.zeros_like(p) for p in model.parameters()]
    count = [0]

    def step():
        loss = learn(model, x, y, optimizer)
        count[0] += 1
        n = count[0]
        for p, a, b in zip(model.parameters(), first, second, strict=True):
            a.mul_((n - 1) / n).add_(p.data / n)
            b.mul_((n - 1) / n).add_(p.data**2 / n)
        home, looks = [p.data for p in model.parameters()], []
        for _ in range(2):
            for p, a, b in zip(model.parameters(), first, second, strict=True):
                p.data = a + (b - a**2).clamp(min=1e-30).sqrt() * torch.randn_like(a)
            with torch.no_grad():
                looks.append(model(x).softmax(1))
        for p, h in zip(model.parameters(), home, strict=True):
            p.data = h
        return loss

    return Program(step, model, optimizer, 3)
