"""The fourth unseen set, fourth part: gradients that are exactly zero."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.built.births import ALL, GH, linear
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault = corpus.fault
SET = "unseen"


@fault(SET, "dead", "sub", ALL, GH + "huggingface/trl/issues/2769")
def policy_ratio_of_a_policy_to_itself(broken):
    model, state = linear(4, 3), torch.rand(6, 4)
    action, gain = torch.tensor([0, 1, 2, 0, 1, 2]), torch.randn(6)

    def step():
        log_p = torch.log_softmax(model(state), 1).gather(1, action[:, None])[:, 0]
        old = log_p if broken else log_p.detach()
        ratio = torch.exp(log_p - old)  # fault
        clipped = ratio.clamp(0.8, 1.2)
        return -torch.minimum(ratio * gain, clipped * gain).mean()

    return Program(step, model)


@fault(
    SET,
    "dead",
    "softmax _softmax",
    "0.weight 0.bias 2.weight 2.bias",
    "discuss.pytorch.org: nn.Softmax after a single output unit",
)
def softmax_over_a_single_logit(broken):
    torch.manual_seed(0)
    last = nn.Softmax(dim=1) if broken else nn.Sigmoid()
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1), last)
    x, y = torch.rand(6, 4), torch.tensor([[0.0], [1.0]]).repeat(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)  # fault
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "dead",
    "mm addmm linear matmul",
    "down.weight up.weight",
    "Hu et al. 2022: an adapter whose two matrices both start at zero",
)
def adapter_with_two_zero_matrices(broken):
    torch.manual_seed(0)
    parts = {"base": nn.Linear(4, 4), "down": nn.Linear(4, 2, bias=False)}
    model = nn.ModuleDict({**parts, "up": nn.Linear(2, 4, bias=False)})
    model.base.requires_grad_(False)
    nn.init.zeros_(model.up.weight)
    if broken:
        nn.init.zeros_(model.down.weight)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, x = torch.optim.AdamW(trained, lr=0.01, weight_decay=0.0), torch.rand(6, 4)

    def step():
        optimizer.zero_grad()
        low = model.down(x)  # fault
        change = model.up(low)  # fault
        loss = (model.base(x) + change - 1).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)


@fault(
    SET,
    "dead",
    "fake_quantize_per_tensor_affine fake_quantize_per_tensor_affine_cachemask "
    "FakeQuantizePerTensorAffineCachemask",
    ALL,
    "Jacob et al. 2018: a quantiser whose scale is far too small",
)
def quantiser_that_clips_every_value(broken):
    model, x = linear(4, 3), torch.rand(6, 4)
    with torch.no_grad():
        model.bias.fill_(4.0)
    scale = 1e-3 if broken else 0.1

    def step():
        h = torch.fake_quantize_per_tensor_affine(model(x), scale, 0, -128, 127)  # fault
        return (h - 1).square().mean()

    return Program(step, model)


@fault(
    SET,
    "dead",
    "mul Binary",
    ALL,
    "Hubara et al. 2016: a window of one around zero, and inputs in the hundreds",
)
def window_of_a_binary_unit(broken):
    class Binary(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sign()

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * (x.abs() <= 1)  # fault

    model, x = linear(4, 3), torch.rand(6, 4) * (500 if broken else 1) + 1

    def step():
        h = Binary.apply(model(x))  # fault
        return (h * torch.tensor([1.0, 2.0, 3.0]) - 1).square().mean()

    return Program(step, model)


@fault(
    SET,
    "dead",
    "clamp minimum maximum clamp_min clamp_max hardtanh",
    "weight",
    "Gulrajani et al. 2017 on Arjovsky et al.: critic weights clipped inside the forward pass",
)
def critic_weights_clipped_in_the_forward_pass(broken):
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.3, -0.4, 0.5, -0.2]]))
    real, fake = torch.rand(6, 4), torch.randn(6, 4)
    bound = 0.01 if broken else 1.0

    def step():
        weight = model.weight.clamp(-bound, bound)  # fault
        score = F.linear(real, weight, model.bias), F.linear(fake, weight, model.bias)
        return (score[1] - score[0]).mean() + model.bias.square().sum()

    return Program(step, model)
