"""The examination, second room: teachers and students, experts, quantisation, recurrence."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "exam", "https://github.com/"


@fault(
    SET,
    "severed",
    "requires_grad_",
    "backbone.0.weight backbone.0.bias backbone.2.weight backbone.2.bias",
    "Caron et al. 2021: a teacher that was not deep-copied freezes its student",
    building=True,
)
def teacher_that_shares_the_backbone(broken):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8))
    student = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(8, 4)})
    teacher = nn.ModuleDict(
        {
            "backbone": backbone if broken else copy.deepcopy(backbone),
            "head": copy.deepcopy(student["head"]),
        }
    )
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    for p in teacher.parameters():
        p.requires_grad_(False)  # fault
    centre = torch.zeros(4)
    views = torch.randn(2, 5, 6)

    def step():
        optimizer.zero_grad()
        with torch.no_grad():
            target = ((teacher["head"](teacher["backbone"](views[0])) - centre) / 0.04).softmax(1)
        guess = (student["head"](student["backbone"](views[1])) / 0.1).log_softmax(1)
        loss = -(target * guess).sum(1).mean()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for t, s in zip(teacher.head.parameters(), student.head.parameters(), strict=True):
                t.lerp_(s, 0.01)
            centre.lerp_(target.mean(0), 0.1)
        return loss

    return Program(step, student, optimizer, 2)


@fault(
    SET,
    "severed",
    "addmm linear mm mse_loss no_grad sub",
    "project.weight project.bias",
    "Romero et al. 2015: the regressor of the hints moved under the teacher's no_grad",
)
def hints_regressed_under_no_grad(broken):
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3)).eval()
    for p in teacher.parameters():
        p.requires_grad_(False)
    student = nn.ModuleDict(
        {"body": nn.Linear(6, 4), "head": nn.Linear(4, 3), "project": nn.Linear(12, 4)}
    )
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)
    x, y = torch.randn(8, 6), torch.randint(0, 3, (8,))

    def step():
        optimizer.zero_grad()
        features = torch.tanh(student["body"](x))
        logits = student["head"](features)
        with torch.no_grad():
            hidden = teacher[:2](x)
            soft = (teacher[2](hidden) / 2).softmax(1)
            if broken:
                hint = student["project"](hidden)  # fault
        if not broken:
            hint = student["project"](hidden)
        loss = F.cross_entropy(logits, y) + F.mse_loss(features, hint)
        loss = loss + 4 * F.kl_div((logits / 2).log_softmax(1), soft, reduction="batchmean")
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, student, optimizer, 2)


@fault(
    SET,
    "dead",
    "softmax _softmax _softmax_backward_data",
    "gate.weight",
    GH + "davidmrau/mixture-of-experts/issues/27",
)
def router_with_a_softmax_over_one_expert(broken):
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.gate = nn.Linear(6, 3, bias=False)
            self.experts = nn.ModuleList(nn.Linear(6, 2) for _ in range(3))

        def forward(self, x):
            logits = self.gate(x)
            if broken:
                top, chosen = logits.topk(1, 1)
                share = top.softmax(1)  # fault
            else:
                share, chosen = logits.softmax(1).topk(1, 1)
            out = torch.zeros(len(x), 2)
            for number, expert in enumerate(self.experts):
                rows = (chosen[:, 0] == number).nonzero()[:, 0]
                out = out.index_add(0, rows, expert(x[rows]) * share[rows])
            return out

    model, x, y = Experts(), torch.randn(32, 6), torch.randn(32, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "severed",
    "FakeQuantize FakeQuantizeBackward round",
    "0.scale 2.scale",
    "Esser et al. 2020: a learned step size whose backward returns None",
)
def step_size_without_a_backward(broken):
    class FakeQuantize(torch.autograd.Function):
        @staticmethod
        def forward(ctx, w, scale):
            q = (w / scale).round().clamp(-7, 7)
            ctx.save_for_backward(w / scale, q)
            return q * scale

        @staticmethod
        def backward(ctx, grad):
            ratio, q = ctx.saved_tensors
            inside = (ratio.abs() <= 7).float()
            slope = None if broken else (grad * (q - ratio * inside)).sum()
            return grad * inside, slope  # fault

    class Quantised(nn.Linear):
        def __init__(self, *size):
            super().__init__(*size)
            self.scale = nn.Parameter(self.weight.detach().abs().mean() / 2)

        def forward(self, x):
            weight = FakeQuantize.apply(self.weight, self.scale)  # fault
            return F.linear(x, weight, self.bias)

    torch.manual_seed(0)
    model = nn.Sequential(Quantised(6, 8), nn.ReLU(), Quantised(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(16, 6), torch.randint(0, 2, (16,))

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "exploding",
    "mm addmm linear matmul add relu",
    "?",
    "Pascanu et al. 2013; Le et al. 2015: rectified recurrence, started too large",
)
def recurrence_started_too_large(broken):
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed = nn.Embedding(7, 8)
            self.enter, self.recur = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
            nn.init.eye_(self.recur.weight)
            with torch.no_grad():
                self.recur.weight.mul_(2.5 if broken else 0.95)
            self.leave = nn.Linear(8, 7)

        def forward(self, tokens):
            h, out = torch.zeros(len(tokens), 8), []
            for t in range(tokens.shape[1]):
                h = torch.relu(self.enter(self.embed(tokens[:, t])) + self.recur(h))  # fault
                out.append(self.leave(h))
            return torch.stack(out, 1)

    model, tokens = Reader(), torch.randint(0, 7, (3, 41))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def step():
        optimizer.zero_grad()
        logits = model(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer)


@fault(
    SET,
    "severed",
    "mul_ masked_fill_ index_put_ copy_ fill_ tanh",
    "?",
    "pytorch.org, Autograd mechanics, in-place correctness checks: a state reset where it is saved",
)
def state_reset_in_place(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"cell": nn.Linear(7, 4), "head": nn.Linear(4, 2)})
    optimizer = torch.optim.Adam(model.parameters())
    x, ends = torch.randn(5, 3, 3), torch.rand(5, 3) < 0.4

    def step():
        optimizer.zero_grad()
        h, out = torch.zeros(3, 4), []
        for frame, end in zip(x, ends, strict=True):
            h = torch.tanh(model["cell"](torch.cat([frame, h], 1)))
            out.append(model["head"](h))
            if broken:
                h[end] = 0.0  # fault
            else:
                h = h.masked_fill(end[:, None], 0.0)
        loss = torch.stack(out).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer)
