"""What a full trace costs, beside detect_anomaly and DebugMode: ``python -m benchmarks.tracing``.

Interleaved rounds on one thread, CPU time of the process; each figure is the median over the
rounds of a step's time divided by the plain step's time of the same round.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._debug_mode import DebugMode

from labkit import trace

Step = Callable[[], torch.Tensor]


class SmallVAE(nn.Module):
    """An NB-VAE in the guide's form, without guards."""

    def __init__(self, genes: int, hidden: int, latent: int = 16):
        super().__init__()
        self.trunk, self.mean, self.logvar = (
            nn.Linear(genes, hidden),
            nn.Linear(hidden, latent),
            nn.Linear(hidden, latent),
        )
        self.back, self.mu, self.r = (
            nn.Linear(latent, hidden),
            nn.Linear(hidden, genes),
            nn.Linear(hidden, genes),
        )

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.trunk(torch.log1p(x)))
        mean, logvar = self.mean(h), self.logvar(h)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        h = F.relu(self.back(z))
        mu, r = F.softplus(self.mu(h)) + 1e-8, F.softplus(self.r(h)) + 1e-8
        total = torch.log(r + mu)
        log_p = torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1)
        log_p = log_p + r * (torch.log(r) - total) + x * (torch.log(mu) - total)
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar)
        return (kl.sum(1) - log_p.sum(1)).mean()


def vae(cells: int, genes: int, hidden: int) -> tuple[nn.Module, Step]:
    model, x = SmallVAE(genes, hidden), torch.poisson(torch.full((cells, genes), 2.0))
    return model, lambda: model.loss(x)


def transformer() -> tuple[nn.Module, Step]:
    layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
    x = torch.randn(24, 96, 256)
    return layer, lambda: layer(x).square().mean()


MODELS = {
    "NB-VAE, 256 cells x 2000 genes": lambda: vae(256, 2000, 128),
    "transformer block": transformer,
    "NB-VAE, 64 cells x 765 genes": lambda: vae(64, 765, 64),
    "tiny VAE, 32 cells x 200 genes": lambda: vae(32, 200, 32),
}


def training(model: nn.Module, loss: Step) -> Step:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return value

    return step


def ways(model: nn.Module, step: Step) -> dict[str, Callable[[], object]]:
    def anomaly():
        with warnings.catch_warnings(), torch.autograd.detect_anomaly():
            step()

    def debug():
        with DebugMode():
            step()

    return {
        "plain": step,
        "plain again": step,
        "labkit.trace": lambda: trace(step, model),
        "detect_anomaly": anomaly,
        "DebugMode": debug,
    }


def measure(name: str, rounds: int) -> tuple[float, dict[str, float]]:
    """Median plain step in milliseconds, and each way's median ratio to it."""
    torch.manual_seed(0)
    model, loss = MODELS[name]()
    methods = ways(model, training(model, loss))
    times: dict[str, list[float]] = {way: [] for way in methods}
    for number in range(rounds + 2):
        for way, run in methods.items():
            begin = time.process_time()
            run()
            if number > 1:
                times[way].append(time.process_time() - begin)
    plain = times.pop("plain")
    ratios = {
        way: statistics.median(a / b for a, b in zip(spent, plain, strict=True))
        for way, spent in times.items()
    }
    return statistics.median(plain) * 1e3, ratios


def main(rounds: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    heads = ("plain again", "labkit.trace", "detect_anomaly", "DebugMode")
    print(f"{'full training step':32} {'plain ms':>8} " + " ".join(f"{h:>14}" for h in heads))
    for name in MODELS:
        plain, ratios = measure(name, rounds)
        print(f"{name:32} {plain:8.1f} " + " ".join(f"{ratios[h]:14.2f}" for h in heads))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    main(parser.parse_args().rounds)
