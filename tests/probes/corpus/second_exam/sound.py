"""The second examination: sound."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus
from tests.probes.corpus.second_exam import descent

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "second_exam", "https://github.com/"


@fault(
    SET,
    "nan",
    "div",
    "?",
    GH + "csteinmetz1/auraloss/issues/25, scale-invariant ratio of a source that is silent",
)
def signal_ratio_of_a_silent_source(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "in": nn.Conv1d(1, 8, 16, 8),
            "mask": nn.Conv1d(8, 16, 1),
            "out": nn.ConvTranspose1d(8, 1, 16, 8, bias=False),
        }
    )
    sources = torch.randn(3, 2, 200)
    sources[1, 1] = 0.0  # one speaker says nothing
    mixed, eps = sources.sum(1, keepdim=True), 0.0 if broken else 1e-8

    def separate():
        h = torch.relu(model["in"](mixed))
        masks = torch.sigmoid(model["mask"](h)).view(3, 2, 8, -1)
        return model["out"]((masks * h[:, None]).flatten(0, 1)).view(3, 2, -1)

    def loss_of():
        guess, true = separate(), sources
        guess, true = guess - guess.mean(-1, True), true - true.mean(-1, True)
        share = (guess * true).sum(-1, True) / (true.square().sum(-1, True) + eps)  # fault
        part = share * true
        ratio = part.square().sum(-1) / ((guess - part).square().sum(-1) + eps)
        return -10 * torch.log10(ratio + 1e-8).mean()

    return descent(loss_of, model, torch.optim.Adam(model.parameters(), lr=1e-3))


@fault(
    SET,
    "inf nan",
    "log",
    "?",
    GH
    + "librosa/librosa/issues: empty filters of a mel basis with too many bands, and a log of them",
)
def mel_band_without_a_bin(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 8, 9, padding=4), nn.Tanh(), nn.Conv1d(8, 1, 9, padding=4))
    noise, clean, window = torch.randn(2, 1, 256), torch.randn(2, 256), torch.hann_window(64)
    edges = torch.linspace(0, 1, (42 if broken else 10)).square() * 32
    bins = torch.arange(33.0)
    up = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    basis = torch.minimum(up, down).clamp(min=0)[1:]

    def log_mel(wave):
        spectrum = torch.stft(wave, 64, 16, window=window, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return torch.log(basis @ power)  # fault

    def loss_of():
        return F.l1_loss(log_mel(model(noise)[:, 0]), log_mel(clean))

    return descent(loss_of, model, torch.optim.Adam(model.parameters(), lr=1e-3))


@fault(
    SET,
    "nan",
    "div abs sgn",
    "?",
    "Griffin, Lim 1984, unrolled: the phase of a bin without any sound is z / |z|",
)
def phase_of_a_silent_bin(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(33, 16), nn.ReLU(), nn.Linear(16, 33), nn.ReLU())
    wave, window = torch.randn(2, 256), torch.hann_window(64)
    wave[1] = 0.0  # digital silence
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)

    def loss_of():
        seen = torch.stft(wave + 0.0, 64, 16, window=window, return_complex=True)
        loud = model(seen.abs().transpose(1, 2)).transpose(1, 2)
        size = seen.abs() if broken else seen.abs().clamp(min=1e-6)
        phase = seen / size  # fault
        again = torch.istft(loud * phase, 64, 16, window=window, length=256)
        return F.l1_loss(again, wave + 0.1)

    return descent(loss_of, model, adam)


@healthy("Yamamoto et al. 2020: spectral losses at three resolutions, silence that is clamped")
def spectral_loss_at_three_resolutions(_):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 8, 9, padding=4), nn.Tanh(), nn.Conv1d(8, 1, 9, padding=4))
    noise, clean = torch.randn(3, 1, 256), torch.randn(3, 256)
    noise[2], clean[1, 100:] = 0.0, 0.0

    def size(wave, n):
        window = torch.hann_window(n)
        s = torch.stft(wave, n, n // 4, window=window, return_complex=True)
        return (s.real.square() + s.imag.square()).clamp(min=1e-7).sqrt()

    def loss_of():
        total, made = 0.0, model(noise)[:, 0]
        for n in (32, 64, 128):
            a, b = size(made, n), size(clean, n)
            total = total + torch.linalg.norm(b - a) / torch.linalg.norm(b)
            total = total + F.l1_loss(a.log(), b.log())
        return total / 3

    return descent(loss_of, model, torch.optim.Adam(model.parameters(), lr=1e-3), 3)
