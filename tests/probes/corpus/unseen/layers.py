"""The fourth unseen set, second part: geometry, pooling, half precision, per-sample gradients."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap

from tests.probes.corpus.built.births import ALL, GH, linear
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault = corpus.fault
SET = "unseen"


@fault(SET, "inf nan", "acosh", ALL, "Nickel, Kiela 2017: a point's distance to itself")
def distance_of_a_point_to_itself_in_a_ball(broken):
    model, x = linear(4, 2, scale=0.2), torch.rand(5, 4)

    def step():
        point = torch.tanh(model(x)) * 0.5
        gap = (point[:, None] - point[None]).square().sum(2)
        room = 1 - point.square().sum(1)
        ratio = 1 + 2 * gap / (room[:, None] * room[None]) + (0.0 if broken else 1e-4)
        return torch.acosh(ratio).mean()  # fault

    return Program(step, model)


@fault(SET, "nan", "div", ALL, GH + "pytorch/pytorch/issues/93998")
def slope_masked_after_the_quotient(broken):
    model = linear(4, 2)
    with torch.no_grad():
        model.bias.zero_()
    x = torch.rand(5, 4)
    x[3:] = 0.0
    real = torch.tensor([True, True, True, False, False])

    def step():
        side = model(x) if broken else model(x[real])
        slope = side[:, 1] / side[:, 0]  # fault
        return torch.atan(slope[real] if broken else slope).square().mean()

    return Program(step, model)


@fault(SET, "nan", "pow", "?", "Radenovic et al. 2018: generalised mean without its clamp")
def generalised_mean_of_negative_features(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(2), nn.LayerNorm(16))
    model.power = nn.Parameter(torch.tensor(2.5))
    x = torch.rand(3, 1, 6, 6)

    def step():
        h = model(x)
        h = h if broken else h.clamp(min=1e-6)
        mean = h.pow(model.power).mean(2).pow(1 / model.power)  # fault
        return (mean - 1).square().mean()

    return Program(step, model)


@fault(SET, "nan inf", "log", ALL, GH + "nerfstudio-project/nerfacc/issues/138")
def opaque_sample_on_a_ray(broken):
    model, x = linear(4, 6), torch.rand(5, 4)
    with torch.no_grad():
        model.bias[2] += 40.0

    def step():
        opacity = torch.sigmoid(model(x)) * (1.0 if broken else 0.9999)
        seen = torch.cumsum(torch.log(1 - opacity), 1).exp()  # fault
        weight = opacity * torch.cat([torch.ones(5, 1), seen[:, :-1]], 1)
        return ((weight * torch.arange(6.0)).sum(1) - 1).square().mean()

    return Program(step, model)


@fault(SET, "nan", "div", ALL, "Wolf et al. 2018, scanpy: scaling a gene that is constant")
def z_score_of_a_constant_gene(broken):
    model, counts = linear(4, 2), torch.poisson(torch.full((8, 4), 5.0))
    counts[:, 2] = 0.0

    def step():
        x = torch.log1p(counts)
        z = (x - x.mean(0)) / (x.std(0) + (0.0 if broken else 1e-3))  # fault
        return model(z).square().mean()

    return Program(step, model)


@fault(SET, "nan", "log", "?", "Micikevicius et al. 2018: an epsilon of 1e-8 in half precision")
def epsilon_lost_in_half_precision(broken):
    model, x = linear(4, 3, scale=60).half(), torch.ones(5, 4).half()
    y = F.one_hot(torch.tensor([0, 1, 2, 0, 1]), 3).half()

    def step():
        logits = model(x)
        if not broken:
            return F.cross_entropy(logits.float(), y.float())
        p = torch.softmax(logits, 1)
        return -(y * torch.log(p + 1e-8)).sum(1).float().mean()  # fault

    return Program(step, model)


@fault(
    SET,
    "nan",
    "_weight_norm_interface _weight_norm WeightNormInterface",
    "?",
    GH + "pytorch/pytorch/issues/19126",
)
def weight_norm_of_a_layer_set_to_zero(broken):
    torch.manual_seed(0)
    last = nn.Linear(4, 2)
    if broken:
        nn.init.zeros_(last.weight)
    last = nn.utils.parametrizations.weight_norm(last)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), last), torch.rand(5, 3)

    def step():
        return (model(x) - 1).square().mean()  # fault

    return Program(step, model)


@fault(SET, "nan inf", "mm matmul", "?", "torch.amp: a Gram matrix in float16 under autocast")
def gram_matrix_under_autocast(broken):
    model, x = linear(4, 3), torch.rand(5, 4) * (2000 if broken else 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            h = model(x)
            alike = h @ h.t()  # fault
        loss = F.cross_entropy(alike.float(), torch.arange(5))
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer)


@fault(SET, "nan", "div", ALL, "Abadi et al. 2016: clipping a sample that fits already")
def private_clipping_of_a_sample_that_fits(broken):
    model, x = linear(4, 1), torch.rand(5, 4)
    y = torch.rand(5, 1)
    y[2] = model(x[2:3]).detach()[0] - 5.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss_of(weights, row, target):
        return torch.relu(target - functional_call(model, weights, (row,))).sum()

    def step():
        weights = {name: p.detach() for name, p in model.named_parameters()}
        each = vmap(grad(loss_of), (None, 0, 0))(weights, x, y)
        size = torch.stack([g.flatten(1).square().sum(1) for g in each.values()]).sum(0).sqrt()
        factor = size.clamp(max=1.0) / (size + (0.0 if broken else 1e-6))  # fault
        for name, p in model.named_parameters():
            p.grad = torch.einsum("b,b...->...", factor, each[name]) / len(x)
        optimizer.step()

    return Program(step, model, optimizer)


@fault(
    SET,
    "nan",
    "softmax _softmax",
    "?",
    "Bahdanau et al. 2015: a source sentence without one word, in a batch of sentences",
)
def attention_over_an_empty_sentence(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"encode": nn.GRU(3, 4, batch_first=True), "score": nn.Linear(8, 1)})
    model["decode"] = nn.GRUCell(4, 4)
    words = torch.rand(2, 4, 3)
    length = torch.tensor([4, 0 if broken else 2])
    outside = torch.arange(4)[None] >= length[:, None]

    def step():
        memory, _ = model.encode(words)
        state, loss = torch.zeros(2, 4), 0.0
        for _ in range(3):
            pair = torch.cat([memory, state[:, None].expand(-1, 4, -1)], 2)
            score = model.score(pair)[..., 0].masked_fill(outside, float("-inf"))
            weight = torch.softmax(score, 1)  # fault
            state = model.decode((weight[..., None] * memory).sum(1), state)
            loss = loss + state.square().mean()
        return loss

    return Program(step, model)


@fault(SET, "exploding inf", "mul sub add rsub", "?", "Euler's method with too long a step")
def stiff_equation_with_a_long_step(broken):
    torch.manual_seed(0)
    model = nn.Module()
    model.rate = nn.Parameter(torch.full((3,), 50.0))
    start, length = torch.rand(4, 3), 0.1 if broken else 0.001

    def step():
        x = start
        for _ in range(24):
            x = x - length * model.rate * x  # fault
        return x.square().mean()

    return Program(step, model)
