"""How large, and how long? Held-out quality of the NBVAE on the packaged cells against CPU time.

python benchmarks/vae_sizes.py [--seeds 2]

Single thread, process time, best of the seeds for the time and the mean for the rest. The first
row is the setting that `trained_vae` uses. The runs of one seed are interleaved over settings.
"""

import argparse
import time
from statistics import mean

import torch

from labkit.cells.data import load_pbmc
from labkit.models.vae import NBVAE
from labkit.training.evaluate import HeldOut, held_out
from labkit.training.train import EPOCHS, train_vae

torch.set_num_threads(1)
SETTINGS = (  # latent, hidden, batch, learning rate, epochs
    (8, 128, 64, 5e-3, EPOCHS),
    (8, 128, 64, 5e-3, 10),
    (8, 128, 64, 5e-3, 40),
    (8, 64, 64, 5e-3, 20),
    (8, 256, 64, 5e-3, 20),
    (16, 128, 64, 5e-3, 20),
    (4, 128, 64, 5e-3, 20),
    (8, 128, 128, 5e-3, 20),
    (8, 128, 32, 5e-3, 20),
    (8, 128, 64, 1e-2, 20),
    (8, 128, 64, 2e-3, 20),
)


def outcome(setting: tuple, seed: int) -> tuple[float, HeldOut]:
    latent, hidden, batch, lr, epochs = setting
    cells = load_pbmc()
    model = NBVAE.for_cells(cells.train, latent, hidden, seed)
    start = time.process_time()
    train_vae(model, cells, epochs, batch, lr, seed)
    return time.process_time() - start, held_out(model, cells)


def main(seeds: int) -> None:
    outcome(SETTINGS[0], 0)  # what torch loads on first use is not timed
    runs: dict[tuple, list] = {setting: [] for setting in SETTINGS}
    for seed in range(seeds):
        for setting, results in runs.items():
            results.append(outcome(setting, seed))
    print("latent hidden batch    lr epochs   CPU s   ELBO    bound   neighbours")
    for (latent, hidden, batch, lr, epochs), results in runs.items():
        scores = [score for _, score in results]
        print(
            f"{latent:6d} {hidden:6d} {batch:5d} {lr:5g} {epochs:6d}"
            f" {min(seconds for seconds, _ in results):7.2f}"
            f" {mean(score.elbo for score in scores):7.1f}"
            f" {mean(score.bound for score in scores):7.1f}"
            f" {mean(score.neighbours for score in scores):9.1%}"
        )
    score = runs[SETTINGS[0]][0][1]
    print(f"beside: pooled profile {score.pooled:.1f}, profile per type {score.per_type:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    main(parser.parse_args().seeds)
