"""The fifth examination, first room: colours, boxes, features, meshes and places."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET = "fifth_exam"


@fault(
    SET,
    "nan",
    "pow",
    "0.weight 0.bias 2.weight 2.bias",
    "kornia rgb_to_lab: the cube root of a black pixel under a where",
)
def lab_colour_of_a_black_pixel(broken):
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1), nn.Sigmoid()
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    grey, lab = torch.rand(4, 1, 8, 8), torch.rand(4, 3, 8, 8)
    subject = (torch.rand(4, 1, 8, 8) > 0.3).float()  # black behind the subject
    to_xyz = torch.tensor([[0.41, 0.36, 0.18], [0.21, 0.72, 0.07], [0.02, 0.12, 0.95]])

    def rgb_to_lab(rgb):
        xyz = torch.einsum("ij,bjhw->bihw", to_xyz, rgb)
        threshold = 0.008856
        base = xyz if broken else xyz.clamp(min=threshold)
        power = base.pow(1 / 3)  # fault
        scale = 7.787 * xyz + 4.0 / 29.0
        f = torch.where(xyz > threshold, power, scale)
        light = 116.0 * f[:, 1] - 16.0
        a = 500.0 * (f[:, 0] - f[:, 1])
        b = 200.0 * (f[:, 1] - f[:, 2])
        return torch.stack([light, a, b], 1) / 100.0

    def step():
        optimizer.zero_grad()
        loss = F.l1_loss(rgb_to_lab(model(grey) * subject), lab)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 1)


@fault(
    SET,
    "nan",
    "div",
    "trunk.weight trunk.bias deltas.weight deltas.bias",
    "fvcore smooth_l1_loss: beta of zero under a where gives nan gradients",
)
def smooth_l1_with_a_beta_of_zero(broken):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = nn.Linear(10, 16)
            self.deltas = nn.Linear(16, 4)
            self.classes = nn.Linear(16, 3)

        def forward(self, rois):
            h = F.relu(self.trunk(rois))
            return self.classes(h), self.deltas(h)

    model = Head()
    nn.init.zeros_(model.deltas.weight)
    nn.init.zeros_(model.deltas.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    rois, labels = torch.randn(12, 10), torch.randint(0, 3, (12,))
    target = torch.randn(12, 4)
    target[0] = 0.0  # this proposal is already its box

    def smooth_l1(guess, truth, beta):
        if beta < 1e-5 and not broken:
            return (guess - truth).abs().mean()
        n = (guess - truth).abs()
        quadratic = 0.5 * n**2 / beta  # fault
        return torch.where(n < beta, quadratic, n - 0.5 * beta).mean()

    def step():
        scores, deltas = model(rois)
        loss = F.cross_entropy(scores, labels) + smooth_l1(deltas, target, 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 1)


@fault(
    SET,
    "nan",
    "sqrt",
    "0.weight 0.bias 2.weight 2.bias",
    "LPIPS normalize_tensor: the root of the summed squares of features that are all zero",
)
def perceptual_norm_of_a_masked_face(broken):
    torch.manual_seed(3)
    generator = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3 * 8 * 8))
    features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.LeakyReLU(0.2))
    features.requires_grad_(False)
    face = torch.zeros(1, 1, 8, 8)
    face[..., 1:6, 2:7] = 1.0
    z, photo = torch.randn(2, 6), torch.rand(2, 3, 8, 8)
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3)

    def normalise(x, eps=1e-10):
        squares = x.pow(2).sum(dim=1, keepdim=True)
        length = squares.sqrt() if broken else (squares + eps).sqrt()  # fault
        return x / (length + eps)

    def step():
        optimizer.zero_grad()
        fake = generator(z).view(2, 3, 8, 8) * face
        gap = normalise(features(fake)) - normalise(features(photo * face))
        loss = gap.pow(2).sum(1).mean() + F.l1_loss(fake, photo)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, generator, optimizer, 1)


@fault(
    SET,
    "nan",
    "sqrt",
    "corners",
    "Heron's formula for a triangle whose corners lie on one line",
)
def area_of_a_needle_by_heron(broken):
    class Mesh(nn.Module):
        def __init__(self):
            super().__init__()
            grid = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [1.5, 1.0]])
            self.corners = nn.Parameter(grid)
            self.register_buffer("faces", torch.tensor([[0, 1, 2], [0, 1, 3], [1, 2, 4]]))

        def areas(self):
            a, b, c = self.corners[self.faces].unbind(1)
            x, y, z = (b - c).norm(dim=-1), (a - c).norm(dim=-1), (a - b).norm(dim=-1)
            s = (x + y + z) / 2
            square = s * (s - x) * (s - y) * (s - z)
            if not broken:
                square = square.clamp(min=1e-12)
            return square.sqrt()  # fault

    mesh = Mesh()
    optimizer = torch.optim.SGD(mesh.parameters(), lr=0.05)

    def step():
        areas = mesh.areas()
        loss = (areas - 0.5).square().sum() + 0.1 * mesh.corners.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, mesh, optimizer, 1)


@fault(
    SET,
    "nan",
    "sqrt",
    "0.weight 0.bias 2.weight 2.bias",
    "Haversine loss for places: the guess that stands on its target",
)
def haversine_of_the_same_place(broken):
    model = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 2))
    nn.init.zeros_(model[2].weight)
    nn.init.zeros_(model[2].bias)
    x = torch.randn(10, 5)
    home = torch.tensor([48.2, 16.4]).deg2rad()
    place = home + 0.01 * torch.randn(10, 2)
    place[3] = home  # somebody who lives in the centre
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def haversine(guess, truth):
        lat, lon = (guess - truth).unbind(-1)
        part = torch.sin(lat / 2) ** 2
        part = part + guess[:, 0].cos() * truth[:, 0].cos() * torch.sin(lon / 2) ** 2
        if not broken:
            part = part.clamp(min=1e-12)
        return 2 * 6371.0 * torch.asin(torch.sqrt(part))  # fault

    def step():
        optimizer.zero_grad()
        loss = haversine(model(x) + home, place).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "inf nan",
    "div",
    "?",
    "CIoU as first published in many repositories: alpha of a perfect box is 0 / 0",
)
def trade_off_of_a_box_that_fits(broken):
    model = nn.Linear(6, 4)
    nn.init.zeros_(model.weight)
    nn.init.constant_(model.bias, 1.0)
    features, optimizer = torch.randn(5, 6), torch.optim.SGD(model.parameters(), lr=0.01)
    truth = 1.0 + torch.rand(5, 4)
    truth[2] = 1.0

    def ciou(guess, truth):
        (x, y, w, h), (u, v, s, t) = guess.unbind(-1), truth.unbind(-1)
        width = (torch.minimum(x + w, u + s) - torch.maximum(x, u)).clamp(min=0)
        height = (torch.minimum(y + h, v + t) - torch.maximum(y, v)).clamp(min=0)
        inside = width * height
        iou = inside / (w * h + s * t - inside)
        shape = 4 / math.pi**2 * (torch.atan(s / t) - torch.atan(w / h)) ** 2
        with torch.no_grad():
            eps = 0.0 if broken else 1e-7
            alpha = shape / (1 - iou + shape + eps)  # fault
        return 1 - iou + alpha * shape

    def step():
        optimizer.zero_grad()
        loss = ciou(model(features), truth).mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 1)
