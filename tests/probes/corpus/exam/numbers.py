"""The examination, ninth room: births of infinities in whole programs."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus
from tests.probes.corpus.exam.science import trained

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "exam", "https://github.com/"


@fault(
    SET,
    "inf nan",
    "cross_entropy cross_entropy_loss log_softmax _log_softmax sum mean neg masked_fill mul add",
    "?",
    GH + "facebookresearch/pytext/pull/1698",
)
def labels_smoothed_over_forbidden_words(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 8), nn.Flatten(), nn.Linear(24, 9))
    tokens, y = torch.randint(1, 9, (6, 3)), torch.randint(1, 9, (6,))
    forbidden = torch.arange(9) == 0
    smoothing = 0.1 if broken else 0.0

    def loss_of():
        logits = model(tokens).masked_fill(forbidden, float("-inf"))  # fault
        return F.cross_entropy(logits, y, label_smoothing=smoothing)  # fault

    return trained(model, loss_of)


@fault(SET, "nan", "mul", "?", GH + "hill-a/stable-baselines/pull/453")
def entropy_of_a_masked_policy(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"body": nn.Linear(4, 8), "pi": nn.Linear(8, 5), "v": nn.Linear(8, 1)})
    obs, returns = torch.randn(8, 4), torch.randn(8)
    allowed = torch.rand(8, 5) < 0.6
    allowed[:, 0] = True
    actions = torch.zeros(8, dtype=torch.long)

    def loss_of():
        h = torch.tanh(model["body"](obs))
        log_p = model["pi"](h).masked_fill(~allowed, float("-inf")).log_softmax(1)
        value = model["v"](h)[:, 0]
        kept = log_p if broken else log_p.masked_fill(~allowed, 0.0)
        entropy = -(log_p.exp() * kept).sum(1).mean()  # fault
        gain = ((returns - value).detach() * log_p.gather(1, actions[:, None])[:, 0]).mean()
        return F.mse_loss(value, returns) - gain - 0.01 * entropy

    return trained(model, loss_of)


@fault(SET, "nan", "div", "?", GH + "yenchenlin/nerf-pytorch/issues/59")
def depth_of_an_empty_ray(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 4))
    t = torch.linspace(0.5, 3.0, 8)
    points = torch.randn(6, 1, 3) + t[None, :, None] * F.normalize(torch.randn(6, 1, 3), dim=2)
    inside = torch.ones(6, 8)
    inside[4] = 0.0  # this ray misses the scene
    colour, depth = torch.rand(6, 3), torch.rand(6) + 1

    def loss_of():
        out = model(points)
        density = F.softplus(out[..., 3]) * inside
        alpha = 1 - torch.exp(-density * (t[1] - t[0]))
        clear = torch.cumprod(torch.cat([torch.ones(6, 1), 1 - alpha + 1e-10], 1), 1)[:, :-1]
        weight = alpha * clear
        seen = (weight[..., None] * torch.sigmoid(out[..., :3])).sum(1)
        total = weight.sum(1)
        far = (weight * t).sum(1) / (total if broken else total + 1e-6)  # fault
        return F.mse_loss(seen, colour) + 0.1 * F.smooth_l1_loss(far, depth)

    return trained(model, loss_of)


@fault(
    SET,
    "nan",
    "rsqrt sqrt",
    "?",
    GH + "NVIDIA/trt-samples-for-hackathon-cn/issues/88",
)
def layer_norm_of_offset_features(broken):
    class Norm(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(width))

        def forward(self, x):
            mean = x.mean(-1, keepdim=True)
            if broken:
                spread = (x * x).mean(-1, keepdim=True) - mean * mean
            else:
                spread = (x - mean).square().mean(-1, keepdim=True)
            return (x - mean) * torch.rsqrt(spread + 1e-5) * self.weight  # fault

    torch.manual_seed(0)
    model = nn.Sequential(Norm(64), nn.Linear(64, 8), nn.GELU(), nn.Linear(8, 1))
    x = 3000.0 + 0.1 * torch.randn(16, 64, generator=torch.Generator().manual_seed(1))
    y = torch.rand(16, 1)
    return trained(model, lambda: F.mse_loss(model(x), y))


@fault(
    SET,
    "nan inf",
    "linalg_eigh _linalg_eigh LinalgEigh",
    "?",
    GH + "XanaduAI/GradDFT/issues/35",
)
def orbitals_of_equal_energy(broken):
    class Hamiltonian(nn.Module):
        def __init__(self):
            super().__init__()
            start = torch.zeros(4) if broken else torch.tensor([0.0, 0.3, 0.7, 1.2])
            self.site = nn.Parameter(start)
            self.hop = nn.Parameter(torch.tensor(0.0 if broken else 0.1))
            self.ring = torch.roll(torch.eye(4), 1, 0) + torch.roll(torch.eye(4), -1, 0)

        def forward(self):
            energy, orbital = torch.linalg.eigh(self.site.diag() + self.hop * self.ring)  # fault
            return energy[:2].sum(), (orbital[:, :2] ** 2).sum(1)

    model, goal = Hamiltonian(), torch.tensor([0.9, 0.6, 0.3, 0.2])

    def loss_of():
        energy, density = model()
        return F.mse_loss(density, goal) + 0.1 * energy

    return trained(model, loss_of)


@fault(SET, "nan", "div mean", "?", GH + "KevinMusgrave/pytorch-metric-learning/issues/107")
def triplets_that_are_all_easy(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4))
    centre = torch.tensor([[6.0, 0.0], [-6.0, 0.0]])
    y = torch.arange(10) % 2
    x = centre[y] + 0.01 * torch.randn(10, 2)
    same = (y[:, None] == y[None]) & ~torch.eye(10, dtype=torch.bool)
    margin = 0.05 if broken else 5.0

    def loss_of():
        z = F.normalize(model(x), dim=1)
        gap = 2 - 2 * z @ z.t()
        hard = gap.masked_fill(~same, -1.0).max(1).values
        near = gap.masked_fill(y[:, None] == y[None], 9.0).min(1).values
        loss = torch.relu(hard - near + margin)
        hard = (loss > 0).sum()
        return loss.sum() / (hard if broken else hard.clamp(min=1))  # fault

    return trained(model, loss_of)


@fault(SET, "inf nan", "ctc_loss _ctc_loss", "?", GH + "ypwhs/captcha_break/issues/29")
def transcript_longer_than_its_audio(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(4, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv1d(8, 5, 1))
    audio = torch.randn(2, 4, 12)
    words = torch.tensor([[1, 2, 3, 4], [2, 2, 3, 3]])
    heard, spoken = torch.tensor([6, 5 if broken else 6]), torch.tensor([4, 4])

    def loss_of():
        log_p = model(audio).permute(2, 0, 1).log_softmax(2)
        return F.ctc_loss(log_p, words, heard, spoken)  # fault

    return trained(model, loss_of)


@fault(
    SET,
    "inf nan",
    "lgamma digamma",
    "?",
    "Sensoy et al. 2018: evidence of zero, without the one that is added to it",
)
def evidence_of_zero(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.ReLU())
    x, y = torch.randn(9, 4), torch.randint(0, 3, (9,))

    def loss_of():
        alpha = model(x) + (0.0 if broken else 1.0)
        hit = alpha.gather(1, y[:, None])[:, 0]
        fit = (torch.digamma(alpha.sum(1) + 1) - torch.digamma(hit + 1)).mean()
        volume = torch.lgamma(alpha).sum(1) - torch.lgamma(alpha.sum(1))  # fault
        return fit + 0.1 * volume.mean()

    return trained(model, loss_of)


@fault(SET, "inf nan", "log logit div", "?", GH + "MokkeMeguru/glow-realnvp-tutorial/issues/3")
def logit_of_a_black_pixel(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16))
    pixels = torch.randint(1, 255, (5, 16))
    pixels[2, 3] = 0

    def loss_of():
        p = pixels / 256 if broken else 0.025 + 0.95 * (pixels + torch.rand(5, 16)) / 256
        z = p.log() - (1 - p).log()  # fault
        log_s, shift = model(z[:, :8]).chunk(2, 1)
        log_s = torch.tanh(log_s)
        moved = torch.cat([z[:, :8], z[:, 8:] * log_s.exp() + shift], 1)
        return (0.5 * moved.square().sum(1) - log_s.sum(1)).mean() + 8 * math.log(2 * math.pi)

    return trained(model, loss_of)


@fault(SET, "inf nan", "bmm matmul mm", "?", "Scores in half precision that are scaled too late")
def half_precision_scores_scaled_too_late(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"qkv": nn.Linear(16, 48), "out": nn.Linear(16, 4)})
    x, y = torch.randn(2, 5, 16), torch.randint(0, 4, (2,))
    with torch.no_grad():
        model["qkv"].weight[:32].mul_(300.0)

    def loss_of():
        q, k, v = (part.half() for part in model["qkv"](x).split(16, 2))
        if broken:
            scores = (q @ k.transpose(1, 2)) / 4  # fault
        else:
            scores = (q / 64).float() @ k.transpose(1, 2).float() / 4096
        h = scores.softmax(-1).float() @ v.float()
        return F.cross_entropy(model["out"](h.mean(1)), y)

    return trained(model, loss_of)
