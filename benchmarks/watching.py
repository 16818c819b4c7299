"""What `labkit.watch` costs while nothing goes wrong: ``python -m benchmarks.watching``.

Three copies of one training run side by side: plain, plain again (the noise) and watched, in random
order in each round, on one thread, in CPU time of the process. ``median`` is the median over
the rounds of a step's time divided by the plain step of the same round. ``all steps`` is the sum
of all steps over the sum of the plain ones: the verified copy every 20 steps is in it, and so is
every disturbance. ``copy`` is the mean time of one verification and copy by itself.
"""

import argparse
import random
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.tracing import vae
from labkit import watch


def transformer() -> tuple[nn.Module, Callable]:
    layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
    x = torch.randn(16, 96, 256)
    return layer, lambda: layer(x).square().mean()


MODELS = {
    "NB-VAE, 256 cells x 2000 genes": (lambda: vae(256, 2000, 128), 1),
    "transformer block, 16 x 96 tokens": (transformer, 1),
    "NB-VAE, 64 cells x 765 genes": (lambda: vae(64, 765, 64), 2),
    "NB-VAE, 64 cells x 400 genes": (lambda: vae(64, 400, 64), 2),
    "tiny VAE, 32 cells x 200 genes": (lambda: vae(32, 200, 32), 4),
}
WAYS = ("plain", "plain again", "watched")


def training(make: Callable, watched: bool) -> tuple[Callable[[], object], object]:
    torch.manual_seed(0)
    model, loss = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return value

    guard = watch(model, optimizer, step=step, folder=None) if watched else None
    return guard or step, guard


def measure(make: Callable, rounds: int) -> tuple[float, dict[str, tuple[float, float]], float]:
    """Median plain step in ms; each way's median and total ratio; one copy in ms."""
    steps, guards = zip(*(training(make, way == "watched") for way in WAYS), strict=True)
    spent: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds + 5):
        for place in random.sample(range(len(WAYS)), len(WAYS)):
            begin = time.process_time()
            steps[place]()
            if number > 4:
                spent[WAYS[place]].append(time.process_time() - begin)
    begin = time.process_time()
    for _ in range(20):
        guards[-1].course.verify()
    taken = (time.process_time() - begin) / 20
    guards[-1].close()
    plain = spent["plain"]
    ratios = {
        way: (
            statistics.median(a / b for a, b in zip(times, plain, strict=True)),
            sum(times) / sum(plain),
        )
        for way, times in spent.items()
    }
    return statistics.median(plain) * 1e3, ratios, taken * 1e3


def main(rounds: int, only: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    random.seed(0)
    print(
        f"{'':32} {'plain':>8} {'rounds':>6} {'plain again':>17} {'watched':>17} {'copy':>7}\n"
        f"{'full training step':32} {'ms':>8} {'':6}"
        f" {'median':>8}{'all':>9} {'median':>8}{'all':>9} {'ms':>7}"
    )
    for name, (make, times) in MODELS.items():
        if only not in name:
            continue
        plain, ratios, taken = measure(make, rounds * times)
        again, watched = ratios["plain again"], ratios["watched"]
        print(
            f"{name:32} {plain:8.1f} {rounds * times:6} {again[0]:8.3f}{again[1]:9.3f}"
            f" {watched[0]:8.3f}{watched[1]:9.3f} {taken:7.2f}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--only", default="", help="part of a model's name")
    given = parser.parse_args()
    main(given.rounds, given.only)
