"""The third examination, third room: gradients that are exactly zero, or as good as zero."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from tests.probes.corpus.case import Corpus
from tests.probes.corpus.third_exam.cuts import trained
from tests.probes.corpus.third_exam.optimizers import batch, two_layers

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "third_exam", "https://github.com/"


@fault(
    SET,
    "dead",
    "clamp clamp_min relu guided",
    "0.weight 0.bias",
    "Springenberg et al. 2015: the hook of guided backpropagation, never taken off again",
)
def guided_backpropagation_left_on(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        model[2].weight.abs_()
    x, y = torch.randn(16, 6), torch.full((16, 1), 4.0)

    def guided(module, grad_in, grad_out):
        return (torch.clamp(grad_in[0], min=0.0),)  # fault

    if broken:
        model[1].register_full_backward_hook(guided)
    return trained(model, lambda: F.mse_loss(model(x), y))


@fault(
    SET,
    "dead",
    "relu clamp clamp_min",
    "scale.parametrizations.weight.original",
    "torch.nn.utils.parametrize: a weight kept positive by a ReLU, and started below zero",
)
def weight_kept_positive_by_a_relu(broken):
    class Positive(nn.Module):
        def forward(self, raw):
            return torch.relu(raw) if broken else F.softplus(raw)  # fault

    torch.manual_seed(0)
    model = nn.ModuleDict({"body": nn.Linear(6, 3), "scale": nn.Linear(3, 3, bias=False)})
    nn.init.constant_(model["scale"].weight, -0.1)
    parametrize.register_parametrization(model["scale"], "weight", Positive())
    x, y = batch()

    def loss_of():
        h = model["body"](x)
        return F.cross_entropy(h + model["scale"](h), y)

    return trained(model, loss_of)


@fault(
    SET,
    "dead severed",
    "relu threshold_backward ReluBackward0 ThresholdBackwardBackward0 threshold grad",
    "0.weight 0.bias 2.weight",
    GH + "tensorflow/tensorflow/issues/9398, Raissi et al. 2019: the curvature of a ReLU network",
)
def curvature_of_a_relu_network(broken):
    torch.manual_seed(0)
    bend = nn.ReLU() if broken else nn.Tanh()  # fault
    model = nn.Sequential(nn.Linear(1, 16), bend, nn.Linear(16, 1, bias=False))
    x = torch.linspace(0, 1, 20)[:, None]

    def loss_of():
        t = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(t).sum(), t, create_graph=True)
        (curve,) = torch.autograd.grad(slope.sum(), t, create_graph=True)  # fault
        return (curve + torch.sin(3 * t)).square().mean()

    return trained(model, loss_of)


@fault(
    SET,
    "dead",
    "grid_sampler grid_sample grid_sampler_2d GridSampler2DBackward0",
    "locate.0.weight locate.0.bias locate.2.weight locate.2.bias",
    GH + "kornia/kornia/issues/827",
)
def nearest_sampling_in_a_spatial_transformer(broken):
    torch.manual_seed(0)
    locate = nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 6))
    model = nn.ModuleDict({"locate": locate, "read": nn.Linear(64, 3)})
    with torch.no_grad():
        locate[2].bias.copy_(torch.tensor([1.0, 0, 0.05, 0, 1, 0.05]))
    pictures, y = torch.rand(12, 1, 8, 8), batch()[1]

    def loss_of():
        theta = model["locate"](pictures.flatten(1)).view(-1, 2, 3)
        grid = F.affine_grid(theta, pictures.shape, align_corners=False)
        mode = "nearest" if broken else "bilinear"
        seen = F.grid_sample(pictures, grid, mode=mode, align_corners=False)  # fault
        return F.cross_entropy(model["read"](seen.flatten(1)), y)

    return trained(model, loss_of)


@fault(
    SET,
    "dead",
    "embedding embedding_dense_backward EmbeddingBackward0",
    "kind.weight",
    "torch.nn.Embedding: the only category of a column is the padding index",
)
def category_that_is_the_padding_index(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"kind": nn.Embedding(3, 4, padding_idx=0), "read": nn.Linear(10, 3)})
    x, y = batch()
    kind = torch.zeros(12, dtype=torch.long) + (0 if broken else 1)

    def loss_of():
        h = torch.cat([x, model["kind"](kind)], 1)  # fault
        return F.cross_entropy(model["read"](h), y)

    return trained(model, loss_of)


@fault(
    SET,
    "dead",
    "_to_copy to real float complex view_as_complex view_as_real ComplexBackward0 mul",
    "imag",
    "A complex product that is cast to float: the warning says what is lost",
)
def imaginary_part_that_is_cast_away(broken):
    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.real = nn.Parameter(torch.randn(6, 5) * 0.3)
            self.imag = nn.Parameter(torch.randn(6, 5) * 0.3)
            self.head = nn.Linear(5, 3)

        def forward(self, x):
            z = x.to(torch.complex64) @ torch.complex(self.real, self.imag)
            return self.head(z.to(torch.float32) if broken else z.abs())  # fault

    torch.manual_seed(0)
    model, (x, y) = Mixer(), batch()
    return trained(model, lambda: F.cross_entropy(model(x), y))


@fault(
    SET,
    "dead",
    "dropout native_dropout mul",
    "0.weight 0.bias 3.weight",
    "keras to torch: the probability to keep, handed on as the probability to drop",
)
def dropout_of_everything(broken):
    torch.manual_seed(0)
    keep = 1.0
    drop = nn.Dropout(keep if broken else 1 - keep)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), drop, nn.Linear(8, 3))
    x, y = batch()
    return trained(model, lambda: F.cross_entropy(model(x), y))  # fault


@fault(
    SET,
    "dead",
    "softshrink softshrink_backward SoftshrinkBackward0",
    "encode.weight encode.bias decode.weight",
    "Gregor, LeCun 2010: a threshold above every code of the learned ISTA",
)
def threshold_above_every_code(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"encode": nn.Linear(6, 12), "decode": nn.Linear(12, 6)})
    x, _ = batch()
    level = 5.0 if broken else 0.05

    def loss_of():
        code = F.softshrink(model["encode"](x), level)  # fault
        return F.mse_loss(model["decode"](code), x) + 1e-3 * code.abs().mean()

    return trained(model, loss_of)


@fault(
    SET,
    "dead vanishing",
    "lstm mkldnn_rnn_layer sigmoid sigmoid_ mul _thnn_fused_lstm_cell LSTM LstmBackward0",
    "start.weight start.bias",
    "Gers et al. 2000: forget gates that start shut, and a state from far back",
)
def forget_gates_that_start_shut(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"start": nn.Linear(6, 8), "lstm": nn.LSTM(2, 8), "read": nn.Linear(8, 3)}
    )
    with torch.no_grad():
        for bias in (model["lstm"].bias_ih_l0, model["lstm"].bias_hh_l0):
            bias[8:16] = -4.0 if broken else 1.5
        model["lstm"].weight_hh_l0[:].mul_(0.1)
    x, y = batch()
    noise = 0.1 * torch.randn(30, 12, 2)

    def loss_of():
        cell = model["start"](x)[None]
        out, _ = model["lstm"](noise, (torch.zeros(1, 12, 8), cell))  # fault
        return F.cross_entropy(model["read"](out[-1]), y)

    return trained(model, loss_of)


@fault(
    SET,
    "dead vanishing",
    "group_norm native_group_norm NativeGroupNormBackward0 native_group_norm_backward",
    "?",
    "torch.nn.GroupNorm: one group per channel, behind a global average pooling",
)
def group_norm_behind_a_global_pooling(broken):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.GroupNorm(6 if broken else 2, 6),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    pictures, y = torch.rand(12, 1, 8, 8), batch()[1]
    return trained(model, lambda: F.cross_entropy(model(pictures), y))  # fault


@fault(
    SET,
    "dead",
    "masked_fill masked_fill_ where index_put_ MaskedFillBackward0 mul",
    "0.weight 0.bias",
    "A padding mask the wrong way round: the words are blanked and the padding is kept",
)
def padding_mask_the_wrong_way_round(broken):
    model = two_layers()
    tokens = torch.randn(12, 5, 6)
    real = torch.arange(5) < torch.full((12, 1), 5)  # this batch has no padding at all
    y = batch()[1]

    def loss_of():
        h = model[1](model[0](tokens))
        h = h.masked_fill((real if broken else ~real)[..., None], 0.0)  # fault
        return F.cross_entropy(model[2](h.sum(1) + 0.1), y)

    return trained(model, loss_of)
