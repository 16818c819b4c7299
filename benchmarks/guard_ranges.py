"""What do the guide's ranges (logvar in ±10, log_r in ±5) cost a healthy model?

python benchmarks/guard_ranges.py [--seeds 5]

Trains on the packaged cells under each setting, with the same seeds, and scores held-out cells.
Then the limit: counts without overdispersion, where the true r is infinite.
"""

import argparse
from dataclasses import dataclass
from statistics import mean, stdev

import torch

from labkit.cells.data import Cells, load_pbmc
from labkit.models.guards import OFF, REPAIRED, Guard, Guards
from labkit.models.likelihood import nb_log_likelihood_from_logs
from labkit.models.vae import NBVAE, elbo_loss
from labkit.probes.guard_audit import audit_guards
from labkit.training.evaluate import likelihood_bounds
from labkit.training.train import train_vae

torch.set_num_threads(1)
LOGVAR = Guard("logvar", "clamp", -10.0, 10.0)
LOG_R = Guard("log_r", "clamp", -5.0, 5.0)
SETTINGS = {
    "off": OFF,
    "guide: logvar in ±10": Guards(logvar=LOGVAR),
    "guide: log_r in ±5": Guards(log_r=LOG_R),
    "repaired": REPAIRED,
}
CAPS = (5.0, 12.0)
MEANS = (1.0, 10.0, 100.0, 1000.0)
DRAWS = 20_000


@dataclass(frozen=True)
class Outcome:
    bound: float  # nats per held-out cell
    altered: dict[str, float]  # share of elements, by guard
    killed: dict[str, float]  # share of elements whose gradient died


def outcome(cells: Cells, guards: Guards, seed: int) -> Outcome:
    model = NBVAE.for_cells(cells.train, seed=seed)
    train_vae(model, cells, seed=seed, guards=guards)
    held_out = cells.test

    def loss_of(guards: Guards) -> torch.Tensor:
        noise = torch.Generator().manual_seed(0)
        x, tissue, library = held_out.counts, held_out.tissue, held_out.library
        return elbo_loss(x, tissue, model, library, guards, generator=noise)[0]

    reports = [report for report in audit_guards(guards, loss_of) if report.calls]
    with torch.no_grad():
        bound = likelihood_bounds(model, held_out, guards, 64, torch.Generator().manual_seed(0))[1]
    return Outcome(
        bound,
        {report.guard: report.altered / report.elements for report in reports},
        {report.guard: report.killed / report.elements for report in reports},
    )


def real_cells(seeds: int) -> None:
    cells = load_pbmc()
    runs = {
        name: [outcome(cells, guards, seed) for seed in range(seeds)]
        for name, guards in SETTINGS.items()
    }
    print(f"{'on real cells':<22} {'bound':>8} {'minus off':>16}   altered / gradient killed")
    for name, outcomes in runs.items():
        paired = [one.bound - off.bound for one, off in zip(outcomes, runs["off"], strict=True)]
        guard = "log_r" if "log_r" in name else "logvar"
        altered = mean(one.altered[guard] for one in outcomes)
        killed = mean(one.killed[guard] for one in outcomes)
        bound = mean(one.bound for one in outcomes)
        error = stdev(paired) / len(paired) ** 0.5 if len(paired) > 1 else float("nan")
        difference = f"{mean(paired):+.2f} ± {error:.2f}"
        print(f"{name:<22} {bound:8.2f} {difference:>16}   {guard} {altered:.3%} / {killed:.3%}")


def no_overdispersion() -> None:
    """Nats lost per count when r stops at the cap; the smallest variance that it allows."""
    noise = torch.Generator().manual_seed(0)
    print(f"\n{'Poisson counts, mean':<22}" + "".join(f"{mu:>12g}" for mu in MEANS))
    for cap in CAPS:
        lost = []
        for mu in MEANS:
            x = torch.poisson(torch.full((DRAWS,), mu), generator=noise).double()
            log_mu = torch.tensor(mu).double().log()
            poisson = x * log_mu - mu - torch.lgamma(x + 1)
            capped = nb_log_likelihood_from_logs(x, log_mu, torch.tensor(cap).double())
            lost.append((poisson - capped).mean().item())
        print(f"{f'log_r <= {cap:g}':<22}" + "".join(f"{nats:12.6f}" for nats in lost))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    real_cells(parser.parse_args().seeds)
    no_overdispersion()
