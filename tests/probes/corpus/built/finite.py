"""Finite, but dead, vanishing, exploding or wrong."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.built.births import GH, linear
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault = corpus.fault


@fault("dead", "dead", "clamp", "logvar.weight logvar.bias", GH + "ooples/AiDotNet/pull/2033")
def logvar_clamped_far_outside(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"mean": nn.Linear(5, 2), "logvar": nn.Linear(5, 2)})
    with torch.no_grad():
        model.logvar.bias.add_(20.0 if broken else 0.0)
    x = torch.rand(6, 5)

    def step():
        mean, logvar = model.mean(x), model.logvar(x)
        logvar = logvar.clamp(-10, 10)  # fault
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(1)
        return kl.mean() + (mean + (0.5 * logvar).exp()).square().mean()

    return Program(step, model)


@fault(
    "dead",
    "dead",
    "relu",
    "0.weight 0.bias 2.weight",
    GH + "jvargasmu/population_estimation/issues/68",
)
def every_hidden_unit_is_dead(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
    with torch.no_grad():
        model[0].bias.fill_(-10.0 if broken else 0.0)
    x, y = torch.rand(8, 4), torch.rand(8, 1)

    def step():
        h = model[1](model[0](x))  # fault
        return F.mse_loss(model[2](h), y)

    return Program(step, model)


@fault("dead", "dead", "relu", "weight bias", GH + "chelsea0x3b/dfdx/issues/486")
def relu_after_the_last_layer(broken):
    model, x = linear(4, 1), torch.rand(8, 4)
    with torch.no_grad():
        model.bias.fill_(-5.0 if broken else 2.0)

    def step():
        out = torch.relu(model(x))  # fault
        return (out - 3).square().mean()

    return Program(step, model)


@fault(
    "dead",
    "dead",
    "sigmoid",
    "weight bias",
    GH + "emited/VariationalRecurrentNeuralNetwork/issues/2",
)
def saturated_sigmoid_in_a_hand_made_loss(broken):
    model, x = linear(4, 1, scale=0.1), torch.rand(8, 4)
    with torch.no_grad():
        model.bias.fill_(40.0)
    y = torch.zeros(8, 1)

    def step():
        if not broken:
            return F.binary_cross_entropy_with_logits(model(x), y)
        p = torch.sigmoid(model(x))  # fault
        return -(y * (p + 1e-8).log() + (1 - y) * (1 - p + 1e-8).log()).mean()

    return Program(step, model)


@fault("dead", "dead", "relu", "0.weight", GH + "lucidrains/deep-cross-attention/issues/2")
def zero_weights_before_relu(broken):
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU())
    torch.manual_seed(0)
    with torch.no_grad():
        model[0].weight.fill_(0.0) if broken else model[0].weight.uniform_(0.1, 0.2)
    x = torch.rand(8, 4)

    def step():
        gates = model(x)  # fault
        return (gates.sum(1) - 1).square().mean()

    return Program(step, model, steps=1)


@fault(
    "vanishing",
    "vanishing",
    "sigmoid mm addmm",
    "?",
    "Bengio, Simard, Frasconi 1994; d2l-ai/d2l-vi/pull/1711",
)
def thirty_sigmoid_layers(broken):
    torch.manual_seed(0)
    model = nn.ModuleList(nn.Linear(6, 6) for _ in range(30))
    x = torch.rand(8, 6)

    def step():
        h = x
        for layer in model:
            h = torch.sigmoid(layer(h)) if broken else h + 0.1 * torch.tanh(layer(h))  # fault
        return h.square().mean()

    return Program(step, model)


@fault("exploding", "exploding", "mm matmul mv tanh addmm", "?", GH + "google/brax/issues/186")
def rollout_of_an_unstable_operator(broken):
    torch.manual_seed(0)
    operator = nn.Parameter(torch.eye(4) * (2.0 if broken else 0.9) + 0.1 * torch.rand(4, 4))
    start = torch.rand(3, 4)

    def step():
        z = start
        for _ in range(40):
            z = z @ operator  # fault
        return z.mean()

    return Program(step)


@fault(
    "exploding",
    "exploding",
    "mm matmul addmm tanh",
    "?",
    "https://arxiv.org/abs/1211.5063 (TanUkkii007/papers-i-read/issues/98)",
)
def recurrent_net_with_large_weights(broken):
    torch.manual_seed(0)
    weight = nn.Parameter((4.0 if broken else 0.5) * torch.linalg.qr(torch.randn(5, 5))[0])
    h0 = nn.Parameter(torch.zeros(1, 5))

    def step():
        h = h0
        for _ in range(30):
            h = torch.sin(h @ weight) if broken else torch.tanh(h @ weight)  # fault
        return h.sum()

    return Program(step)


@fault("wrong", "wrong", "sub lgamma add", "?", GH + "scverse/scvi-tools/issues/2965", shadow=True)
def likelihood_at_a_huge_dispersion(broken):
    r = torch.full((4,), 1e7 if broken else 2.0, requires_grad=True)
    x = torch.tensor([0.0, 1.0, 5.0, 9.0])

    def step():
        log_p = torch.lgamma(x + r) - torch.lgamma(r) - x * torch.log(r)  # fault
        return log_p.sum()

    return Program(step)


@fault(
    "wrong",
    "wrong",
    "sub add addmm addcmul cdist _cdist_forward baddbmm",
    "?",
    GH + "jeanfeydy/geomloss/issues/24",
    shadow=True,
)
def distances_far_from_the_origin(broken):
    torch.manual_seed(0)
    x = (torch.rand(5, 3) + (3000.0 if broken else 0.0)).requires_grad_()

    def step():
        norm = x.square().sum(1)
        square = norm[:, None] + norm[None, :] - 2 * x @ x.T  # fault
        return square.clamp(min=0).sum()

    return Program(step)
