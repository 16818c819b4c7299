"""A third set of unseen programs, faults of values: forward, backward, finite but wrong."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.built.births import ALL, GH, linear
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault = corpus.fault
SET = "fresh"


@fault(SET, "nan inf", "div", ALL, GH + "huggingface/diffusers/pull/5096")
def weight_of_a_time_step_without_signal(broken):
    class Schedule:
        def __init__(self):
            signal = torch.linspace(0.99, 0.0, 5)
            self.alpha, self.sigma = signal.sqrt(), (1 - signal).sqrt()

        def snr(self, t):
            return (self.alpha[t] / self.sigma[t]) ** 2

    model, schedule = linear(4, 4), Schedule()
    x, noise, t = torch.rand(3, 4), torch.rand(3, 4), torch.tensor([1, 3, 4])

    def step():
        snr = schedule.snr(t)
        top = torch.stack([snr, torch.full_like(snr, 5.0)], 1).min(1).values
        weight = top / (snr if broken else snr + 1)  # fault
        return ((model(x) - noise).square().mean(1) * weight).mean()

    return Program(step, model)


@fault(SET, "inf nan", "log", "", GH + "pytorch/vision/issues/2240")
def box_without_a_width(broken):
    model, x = linear(4, 2), torch.rand(3, 4)
    anchors = torch.tensor([[0.0, 0.0, 4.0, 4.0]] * 3)
    target = {
        "boxes": torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 1.0, 3.0], [0.0, 1.0, 3.0, 4.0]])
    }

    def encoded(boxes):
        size, base = boxes[:, 2:] - boxes[:, :2], anchors[:, 2:] - anchors[:, :2]
        if not broken:
            size = size.clamp(min=1.0)
        return torch.log(size / base)  # fault

    return Program(lambda: F.smooth_l1_loss(model(x), encoded(target["boxes"])), model)


@fault(SET, "inf nan", "xlogy", ALL, GH + "cornellius-gp/gpytorch/issues/1579")
def beta_likelihood_of_an_observed_one(broken):
    model, x = linear(4, 2), torch.rand(3, 4)
    y = torch.tensor([0.2, 0.7, 1.0 if broken else 1.0 - 1e-6])

    def step():
        one, two = (F.softplus(model(x)) + 1.1).unbind(1)
        prior = torch.distributions.Beta(one, two, validate_args=False)
        return -prior.log_prob(y).mean()  # fault

    return Program(step, model)


@fault(SET, "nan", "log mul", "alpha", GH + "pytorch/pytorch/pull/103605")
def dirichlet_of_a_share_of_zero(broken):
    alpha = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    share = torch.tensor([0.0, 0.4, 0.6])

    def step():
        if broken:
            inner = ((alpha - 1) * torch.log(share)).sum()  # fault
        else:
            inner = torch.xlogy(alpha - 1, share.clamp(min=1e-6)).sum()
        return -(inner + torch.lgamma(alpha.sum()) - torch.lgamma(alpha).sum())

    return Program(step)


@fault(SET, "nan", "div", "?", GH + "pytorch/pytorch/issues/20192")
def spectral_norm_of_a_zero_weight(broken):
    model, x = linear(4, 4), torch.rand(3, 4)
    with torch.no_grad():
        model.weight.mul_(0.0 if broken else 1.0)
    model = nn.utils.parametrizations.spectral_norm(model)

    def step():
        h = model(x)  # fault
        return h.square().mean()

    return Program(step, model)


@fault(SET, "inf nan", "log", "", GH + "csteinmetz1/auraloss")
def log_spectrum_of_silence(broken):
    model, x = linear(8, 16), torch.rand(2, 8)
    sound = torch.stack([torch.sin(torch.arange(16.0)), torch.zeros(16)])

    def spectrum(wave):
        size = torch.fft.rfft(wave).abs()
        return torch.log(size if broken else size.clamp(min=1e-5))  # fault

    return Program(lambda: F.l1_loss(spectrum(model(x)), spectrum(sound)), model)


@fault(SET, "nan", "div", "w", GH + "pytorch/functorch/issues/381")
def row_of_zeros_under_vmap(broken):
    rows = torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, 1.0]])
    w = torch.tensor([0.5, -0.5], requires_grad=True)

    def score(row):
        unit = row / (row.square().sum().sqrt() + (0.0 if broken else 1e-6))  # fault
        return (unit * w).sum()

    return Program(lambda: torch.func.vmap(score)(rows).square().mean())


@fault(SET, "nan inf", "sqrt", "axis", GH + "kornia/kornia/issues/1715")
def rotation_by_no_angle(broken):
    axis = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.2, 0.3]], requires_grad=True)

    def step():
        square = axis.square().sum(1, keepdim=True)
        small = (square < 1e-6).float()
        theta = torch.sqrt(square if broken else square + 1e-12)  # fault
        turned = axis / (theta + 1e-6) * torch.sin(theta)
        return (small * axis + (1 - small) * turned).sum()

    return Program(step)


@fault(SET, "nan", "div", "size", GH + "Zzh-tju/DIoU-pytorch-detectron/issues/3")
def aspect_ratio_of_a_flat_box(broken):
    size = torch.tensor([[2.0, 1.0], [3.0, 0.0]], requires_grad=True)
    truth = torch.tensor([[2.0, 2.0], [3.0, 1.0]])

    def angle(wh):
        if not broken:
            return torch.atan2(wh[:, 0], wh[:, 1])
        return torch.atan(wh[:, 0] / wh[:, 1])  # fault

    return Program(lambda: (angle(size) - angle(truth)).square().sum())


@fault(SET, "exploding", "div", "y", GH + "pytorch/pytorch/pull/18250")
def cosine_with_a_vector_of_zeros(broken):
    x = torch.rand(3, 4)
    y = torch.full((3, 4), 0.0 if broken else 0.1).requires_grad_(True)

    def step():
        return (1 - F.cosine_similarity(x, y, eps=1e-8)).mean()  # fault

    return Program(step)


@fault(
    SET,
    "wrong",
    "sub",
    "?",
    GH + "berceanu/openPMD-resampler/pull/3",
    shadow=True,
)
def variance_as_a_difference_of_squares(broken):
    torch.manual_seed(0)
    scale = torch.ones(3, requires_grad=True)
    phase = 1000.0 + torch.randn(50, 3)

    def step():
        x = phase * scale
        if broken:
            spread = x.square().mean(0) - x.mean(0).square()  # fault
        else:
            spread = (x - x.mean(0)).square().mean(0)
        return (spread - 2.0).square().sum()

    return Program(step)


@fault(SET, "inf nan", "batch['weight']", ALL, GH + "pytorch/vision/issues/5322")
def infinite_weight_in_a_batch(broken):
    model = linear(4, 1)
    batch = {"x": torch.rand(3, 4), "y": torch.rand(3, 1), "weight": torch.ones(3, 1)}
    batch["weight"][1] = float("inf") if broken else 2.0

    def step():
        error = (model(batch["x"]) - batch["y"]).square()
        return (error * batch["weight"]).mean()  # fault

    return Program(step, model)
