"""The second examination: students, inner loops, low bits."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.second_exam import descent

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "second_exam", "https://github.com/"
TWO = "0.weight 0.bias 2.weight 2.bias"


@fault(SET, "nan", "mean", "?", "Park et al. 2019: relational distillation, a last batch of one")
def relations_of_a_batch_of_one(broken):
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8)).requires_grad_(False)
    student = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8, bias=False))
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    x = torch.randn(9 if broken else 10, 6)

    def relations(e):
        gram, square = e @ e.t(), e.square().sum(1)
        d = (square[:, None] + square[None] - 2 * gram).clamp(min=1e-12).sqrt()
        d = d * (1 - torch.eye(len(e)))
        return d / d[d > 0].mean()  # fault

    def step():
        for part in x.split(4 if broken else 5):
            with torch.no_grad():
                goal = relations(teacher(part))
            loss = F.smooth_l1_loss(relations(student(part)), goal)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss

    return Program(step, student, optimizer)


@fault(
    SET,
    "severed",
    "Parameter parameter __new__ _make_subclass detach alias",
    TWO,
    "Finn et al. 2017: the adapted weights are wrapped in nn.Parameter",
)
def fast_weights_wrapped_as_parameters(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    outer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        total = 0.0
        for _ in range(3):
            x, a = torch.rand(10, 1) * 6 - 3, torch.rand(1) + 0.5
            slow = dict(model.named_parameters())
            loss = F.mse_loss(model(x[:5]), a * torch.sin(x[:5]))
            grads = torch.autograd.grad(loss, list(slow.values()), create_graph=True)
            fast = {n: p - 0.1 * g for (n, p), g in zip(slow.items(), grads, strict=True)}
            if broken:
                fast = {n: nn.Parameter(p) for n, p in fast.items()}  # fault
            total = total + F.mse_loss(functional_call(model, fast, (x[5:],)), a * torch.sin(x[5:]))
        outer.zero_grad()
        total.backward()
        outer.step()
        return total

    return Program(step, model, outer, 2)


@fault(
    SET,
    "exploding",
    "sub mul add rsub mm addmm",
    "?",
    "Antoniou et al. 2019: many inner steps of a rate that is too large, unrolled",
)
def inner_loop_that_runs_away(broken):
    start = nn.Linear(4, 1, bias=False)
    outer = torch.optim.Adam(start.parameters(), lr=1e-3)
    rate = 3.0 if broken else 0.05

    def step():
        x = torch.randn(20, 4)
        y = x @ torch.ones(4, 1)
        w = start.weight.t()
        for _ in range(10):
            error = x[:10] @ w - y[:10]  # fault
            w = w - rate * 2 * x[:10].t() @ error / 10  # fault
        loss = F.mse_loss(x[10:] @ w, y[10:])
        outer.zero_grad()
        loss.backward()
        outer.step()
        return loss

    return Program(step, start, outer)


@healthy("Li et al. 2017, Meta-SGD: a learned rate for each weight, first order in the first epoch")
def learned_inner_rates(_):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    rates = nn.ParameterList(torch.full_like(p, 0.05) for p in net.parameters())
    model, epoch = nn.ModuleDict({"net": net, "rates": rates}), [0]
    outer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        x, slow = torch.rand(10, 1) * 6 - 3, dict(net.named_parameters())
        inner = F.mse_loss(net(x[:5]), x[:5].sin())
        grads = torch.autograd.grad(inner, list(slow.values()), create_graph=epoch[0] > 0)
        moved = zip(slow.items(), rates, grads, strict=True)
        fast = {n: p - r * g for (n, p), r, g in moved}
        loss = F.mse_loss(functional_call(net, fast, (x[5:],)), x[5:].sin())
        outer.zero_grad()
        loss.backward()
        outer.step()
        epoch[0] += 1
        return loss

    return Program(step, model, outer, 3)


class Step(torch.autograd.Function):
    """Rounding whose gradient passes straight through."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad


@fault(SET, "nan", "div", "?", "Esser et al. 2020: a step size that is begun on weights of zero")
def learned_step_of_weights_that_are_zero(broken):
    class Quantised(nn.Linear):
        def __init__(self, inputs, outputs, zero=False):
            super().__init__(inputs, outputs)
            if zero:
                nn.init.zeros_(self.weight)
            self.step = nn.Parameter(2 * self.weight.detach().abs().mean() / 7**0.5)

        def forward(self, x):
            scale = (self.weight.numel() * 7) ** -0.5
            s = (self.step - self.step * scale).detach() + self.step * scale
            w = Step.apply((self.weight / s).clamp(-8, 7)) * s  # fault
            return F.linear(x, w, self.bias)

    torch.manual_seed(0)
    model = nn.Sequential(Quantised(6, 8), nn.ReLU(), Quantised(8, 3, zero=broken))
    x, y = torch.randn(12, 6), torch.randint(0, 3, (12,))
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    return descent(lambda: F.cross_entropy(model(x), y), model, sgd)


@healthy("Jacob et al. 2018; Hinton et al. 2015: eight bits, observers, a frozen teacher in half")
def eight_bit_student_of_a_half_precision_teacher(_):
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).bfloat16().eval()
    student = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU6(), nn.Linear(8, 3))
    low, high = torch.tensor(torch.inf), torch.tensor(-torch.inf)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))

    def fake(t, a, b):
        scale = ((b - a) / 255).clamp(min=1e-8)
        zero = (-a / scale).round().clamp(0, 255).int()
        return torch.fake_quantize_per_tensor_affine(t, scale, zero, 0, 255)

    def step():
        with torch.no_grad():
            goal = (teacher(x.bfloat16()).float() / 4).softmax(1)
        h = student[2](student[1](student[0](x)))
        low.copy_(torch.minimum(low, h.detach().min()))
        high.copy_(torch.maximum(high, h.detach().max()))
        w = student[3].weight
        w = fake(w, w.detach().min(), w.detach().max())
        logits = F.linear(fake(h, low, high), w, student[3].bias)
        soft = F.kl_div(F.log_softmax(logits / 4, 1), goal, reduction="batchmean") * 16
        loss = soft + 0.1 * F.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, student, optimizer, 3)
