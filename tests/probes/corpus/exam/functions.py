"""The examination, eighth room: drawn codes, spikes, hooks, backwards of one's own."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus
from tests.probes.corpus.exam.mechanisms import TWO_LAYERS, batch, small
from tests.probes.corpus.exam.science import trained

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET = "exam"


@fault(
    SET,
    "dead severed",
    "bernoulli bernoulli_",
    "encode.weight encode.bias",
    "Bengio et al. 2013: a binary code that is drawn, without an estimator of its gradient",
)
def binary_code_that_is_drawn(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"encode": nn.Linear(6, 4), "decode": nn.Linear(4, 6)})
    x = torch.rand(10, 6)

    def loss_of():
        p = torch.sigmoid(model["encode"](x))
        code = torch.bernoulli(p)  # fault
        if not broken:
            code = p + (code - p).detach()
        return F.binary_cross_entropy_with_logits(model["decode"](code), x)

    return trained(model, loss_of, 2)


@fault(
    SET,
    "severed",
    "gt greater ge",
    "enter.weight enter.bias",
    "Neftci et al. 2019: spikes without a surrogate gradient",
)
def spiking_network_without_a_surrogate(broken):
    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, v):
            ctx.save_for_backward(v)
            return (v > 0).float()

        @staticmethod
        def backward(ctx, grad):
            (v,) = ctx.saved_tensors
            return grad / (1 + 5 * v.abs()).square()

    torch.manual_seed(0)
    model = nn.ModuleDict({"enter": nn.Linear(6, 12), "leave": nn.Linear(12, 3)})
    current, y = torch.rand(8, 10, 6) * 3, torch.randint(0, 3, (10,))

    def loss_of():
        v, total = torch.zeros(10, 12), torch.zeros(10, 3)
        for frame in current:
            v = 0.9 * v + model["enter"](frame)
            spike = (v > 0.5).float() if broken else Spike.apply(v - 0.5)  # fault
            v = v - 0.5 * spike
            total = total + model["leave"](spike)
        return F.cross_entropy(total / len(current), y)

    return trained(model, loss_of, 2)


@fault(
    SET,
    "nan",
    "div div_",
    "shared.weight shared.bias",
    "Chen et al. 2018: gradients brought to one length by a hook, in a step without any",
)
def hook_that_divides_by_the_length_of_a_gradient(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"shared": nn.Linear(6, 8), "a": nn.Linear(8, 2), "b": nn.Linear(8, 1)})
    x, y = batch()
    weight = torch.zeros(12)  # no sample of this batch has the second label

    def even(grad):
        return grad / (grad.norm() + (0.0 if broken else 1e-8))  # fault

    def loss_of():
        h = torch.tanh(model["shared"](x))
        for_b = h * 1.0
        for_b.register_hook(even)
        first = F.cross_entropy(model["a"](h), y.clamp(max=1))
        second = (weight * model["b"](for_b)[:, 0].square()).sum()
        return first + second + 1e-3 * model["b"].weight.square().sum() + model["b"].bias.sum()

    return trained(model, loss_of)


@fault(
    SET,
    "nan",
    "div Length LengthBackward",
    TWO_LAYERS,
    "pytorch.org, Extending autograd: a backward of one's own, not defined at zero",
)
def own_length_whose_backward_divides_by_zero(broken):
    class Length(torch.autograd.Function):
        @staticmethod
        def forward(ctx, v):
            length = v.norm(dim=1, keepdim=True)
            ctx.save_for_backward(v, length)
            return length

        @staticmethod
        def backward(ctx, grad):
            v, length = ctx.saved_tensors
            return grad * v / (length if broken else length.clamp(min=1e-12))  # fault

    model, (x, _) = small(2), batch()
    anchor = model(x).detach()

    def loss_of():
        moved = model(x + 0.1 * (torch.arange(12) > 0)[:, None]) - anchor
        return Length.apply(moved).mean()  # fault

    return trained(model, loss_of)
