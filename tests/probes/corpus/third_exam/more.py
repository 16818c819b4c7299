"""The third examination, fifth room: losses, layers and edges of functions."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus
from tests.probes.corpus.third_exam.cuts import trained
from tests.probes.corpus.third_exam.optimizers import TWO, batch, two_layers

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "third_exam", "https://github.com/"


@fault(
    SET,
    "inf nan",
    "div binary_cross_entropy_with_logits true_divide",
    "?",
    GH + "webis-de/small-text/issues/39",
)
def positive_weight_of_an_absent_label(broken):
    model, (x, _) = two_layers(4), batch()
    y = (torch.rand(12, 4) < 0.4).float()
    y[:, 2] = 0.0
    hits = y.sum(0)
    hits = hits if broken else hits.clamp(min=1)

    def loss_of():
        weight = (len(y) - hits) / hits  # fault
        return F.binary_cross_entropy_with_logits(model(x), y, pos_weight=weight)  # fault

    return trained(model, loss_of, steps=1)


@fault(
    SET,
    "nan",
    "nll_loss cross_entropy cross_entropy_loss nll_loss_forward nll_loss_nd div",
    TWO,
    "torch.nn.CrossEntropyLoss: a mean over a batch in which every class weighs nothing",
)
def class_weights_that_sum_to_zero(broken):
    model, (x, _) = two_layers(3), batch()
    y = torch.zeros(12, dtype=torch.long)  # background only
    y[:3] = 0 if broken else 1
    weight = torch.tensor([0.0, 1.0, 1.0])

    def loss_of():
        return F.cross_entropy(model(x), y, weight=weight)  # fault

    return trained(model, loss_of, steps=1)


@fault(
    SET,
    "nan",
    "hypot HypotBackward0 div",
    "?",
    "torch.hypot: the edge strength of a flat patch",
)
def edge_strength_of_a_flat_patch(broken):
    torch.manual_seed(0)
    model = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    noisy, clean = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    noisy[0] = 0.0
    sobel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    sobel = torch.stack([sobel, sobel.t()])[:, None]

    def strength(picture):
        g = F.conv2d(picture, sobel)
        if broken:
            return torch.hypot(g[:, 0], g[:, 1])  # fault
        return (g.square().sum(1) + 1e-6).sqrt()

    def loss_of():
        out = model(noisy)
        return F.l1_loss(out, clean) + F.l1_loss(strength(out), strength(clean))

    return trained(model, loss_of, steps=1)


@fault(
    SET,
    "nan",
    "logaddexp LogaddexpBackward0",
    "?",
    GH + "pytorch/pytorch/issues/49724",
)
def sum_of_two_paths_that_do_not_exist(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"emit": nn.Linear(6, 4), "stay": nn.Linear(6, 4)})
    x, _ = batch()
    nothing = float("-inf") if broken else -1e4

    def loss_of():
        emit, stay = (F.logsigmoid(model[k](x)) for k in ("emit", "stay"))
        alpha = torch.full((4,), nothing)
        alpha = torch.cat([emit[0, :1] * 0, alpha[1:]])
        for t in range(1, 12):
            come = torch.cat([alpha.new_full((1,), nothing), alpha[:-1]])
            alpha = torch.logaddexp(alpha + stay[t], come + emit[t])  # fault
        return -alpha[-1]

    return trained(model, loss_of, steps=1)


@fault(
    SET,
    "inf nan",
    "acos AcosBackward0",
    "?",
    "Geodesic distance of rotations that agree: the arc cosine at one",
)
def geodesic_distance_of_equal_rotations(broken):
    class Pose(nn.Module):
        def __init__(self):
            super().__init__()
            self.angle = nn.Parameter(torch.tensor([0.0, 0.3, -0.4]))

        def forward(self):
            c, s = self.angle.cos(), self.angle.sin()
            rows = torch.stack([c, -s, s, c], 1)
            return rows.view(3, 2, 2)

    model, goal = Pose(), torch.eye(2).expand(3, 2, 2)

    def loss_of():
        trace = (model().transpose(1, 2) @ goal).diagonal(dim1=1, dim2=2).sum(1)
        cosine = trace / 2
        if not broken:
            cosine = cosine * 0.999
        return torch.acos(cosine).mean()  # fault

    return trained(model, loss_of, steps=1)


@fault(
    SET,
    "nan",
    "div local_response_norm",
    "?",
    "torch.nn.LocalResponseNorm: an offset of zero, and a patch that a ReLU has emptied",
)
def response_norm_with_an_offset_of_zero(broken):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.LocalResponseNorm(2, k=0.0 if broken else 1.0),
        nn.Flatten(),
        nn.Linear(144, 3),
    )
    pictures, y = torch.randn(12, 1, 8, 8), batch()[1]
    return trained(model, lambda: F.cross_entropy(model(pictures), y), steps=1)  # fault


@fault(
    SET,
    "exploding inf nan",
    "mul exp MulBackward0",
    "?",
    "Rezende, Mohamed 2015: a flow whose log scales are multiplied out over many layers",
)
def scales_multiplied_over_many_layers(broken):
    torch.manual_seed(0)
    layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(60))
    x, _ = batch()

    def loss_of():
        z, log_det = x, 0.0
        for layer in layers:
            log_s = layer(z.roll(1, 1))
            log_s = 4 * torch.sigmoid(log_s) if broken else 0.1 * torch.tanh(log_s)
            z = z * log_s.exp()  # fault
            log_det = log_det + log_s.sum(1)
        return (0.5 * z.square().sum(1) - log_det).mean()

    return trained(layers, loss_of, steps=1)


@fault(
    SET,
    "severed",
    "Parameter __new__ _make_subclass detach alias",
    "gate.weight gate.bias",
    "discuss.pytorch.org: a computed tensor that is wrapped as nn.Parameter in forward",
)
def computed_weight_wrapped_as_a_parameter(broken):
    class Modulated(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.weight = nn.Linear(2, 6), nn.Parameter(torch.randn(3, 6))

        def forward(self, x, style):
            scale = torch.sigmoid(self.gate(style))
            if broken:
                scale = nn.Parameter(scale)  # fault
            return F.linear(x, self.weight * scale)

    torch.manual_seed(0)
    model, (x, y) = Modulated(), batch()
    style = torch.tensor([0.3, -1.0])
    return trained(model, lambda: F.cross_entropy(model(x, style), y))


@fault(
    SET,
    "severed",
    "linspace",
    "width",
    "torch.linspace takes a tensor as its end and gives no gradient for it",
)
def grid_made_by_linspace_of_a_parameter(broken):
    class Gabor(nn.Module):
        def __init__(self):
            super().__init__()
            self.width = nn.Parameter(torch.tensor(2.0))
            self.pitch, self.gain = nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(4))

        def forward(self, x):
            unit = torch.linspace(-1, 1, 9)
            t = torch.linspace(-self.width, self.width, 9) if broken else unit * self.width  # fault
            bank = self.gain[:, None] * torch.cos(3 * self.pitch[:, None] * t) * torch.exp(-t * t)
            return F.conv1d(x, bank[:, None])

    torch.manual_seed(0)
    model, x = Gabor(), torch.randn(3, 1, 20)
    y = torch.randn(3, 4, 12)
    return trained(model, lambda: F.mse_loss(model(x), y))
