"""Is the model any good? Held-out cells, beside two simpler models that are fitted as well."""

from dataclasses import dataclass
from math import log

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from labkit.cells.data import Cells
from labkit.models.guards import REPAIRED, Guards
from labkit.models.likelihood import nb_log_likelihood_from_logs
from labkit.models.vae import NBVAE, embed, sample_z

LOG_R = torch.linspace(-3.0, 6.0, 25)  # each gene of a baseline takes the best of these


@dataclass(frozen=True)
class HeldOut:
    """Log-likelihood of held-out cells, nats per cell, and cell types found by neighbours.

    All four likelihoods are of whole cells that no fit saw. `bound` and `elbo` are lower bounds:
    the model's true value is higher. `per_type` is told the type of each held-out cell.
    """

    pooled: float  # one mean profile for all cells
    per_type: float  # one mean profile per cell type
    elbo: float  # of the VAE
    bound: float  # of the VAE, importance weighted
    neighbours: float  # share of cells whose 15 nearest training cells vote for the right type

    @property
    def likelihoods(self) -> dict[str, float]:
        """The four likelihoods by name."""
        return {name: value for name, value in vars(self).items() if name != "neighbours"}

    def __str__(self) -> str:
        rows = [f"{name:<9} {value:9.1f} nats per cell" for name, value in vars(self).items()]
        return "\n".join(rows[:-1]) + f"\nneighbours {self.neighbours:8.1%} right"


@torch.no_grad()
def held_out(model: NBVAE, cells: Cells, samples: int = 64, seed: int = 0) -> HeldOut:
    """Score the model on the held-out cells of `cells`; fit the baselines on the others."""
    train, test = cells.train, cells.test
    elbo, bound = likelihood_bounds(model, test, REPAIRED, samples, Generator().manual_seed(seed))
    pooled = (train.counts.sum(0) + 0.5) / train.library.sum()
    return HeldOut(
        pooled=baseline(train, test, pooled.expand(len(cells.type_names), -1)),
        per_type=baseline(train, test, type_rates(train, pooled)),
        elbo=elbo,
        bound=bound,
        neighbours=neighbour_accuracy(embed(model, train), train, embed(model, test), test),
    )


def likelihood_bounds(
    model: NBVAE, cells: Cells, guards: Guards, samples: int, generator: Generator
) -> tuple[float, float]:
    """Lower bounds of the mean log p(x): ELBO, importance weighted (Burda et al. 2016, eq. 8)."""
    mu, logvar = model.encoder(cells.counts, cells.tissue)
    logvar = guards.logvar(logvar)
    weights = []
    for _ in range(samples):
        z = sample_z(mu, logvar, generator)
        log_mu, log_r = model.decoder(z, cells.tissue, cells.library, as_logs=True)
        log_p = nb_log_likelihood_from_logs(cells.counts, log_mu, guards.log_r(log_r)).sum(1)
        log_ratio = 0.5 * (logvar + (z - mu).square() / logvar.exp() - z.square()).sum(1)
        weights.append(log_p + log_ratio)
    weight = torch.stack(weights)
    return float(weight.mean()), float((weight.logsumexp(0) - log(samples)).mean())


def type_rates(cells: Cells, pooled: Tensor, pseudo_cells: float = 5.0) -> Tensor:
    """Mean rate of each gene in each type, drawn to the pooled one by that many average cells."""
    kinds = F.one_hot(cells.cell_type, len(cells.type_names)).to(cells.counts)
    extra = pseudo_cells * cells.library.mean()
    return (kinds.T @ cells.counts + extra * pooled) / (kinds.T @ cells.library + extra)[:, None]


def baseline(train: Cells, test: Cells, rates: Tensor) -> float:
    """Negative binomial with a rate per (type, gene) and each gene's best r on training cells."""

    def per_gene(cells: Cells, log_r: Tensor) -> Tensor:
        log_mu = (rates[cells.cell_type] * cells.library[:, None]).log()
        return nb_log_likelihood_from_logs(cells.counts, log_mu, log_r).mean(0)

    best = torch.stack([per_gene(train, log_r) for log_r in LOG_R]).argmax(0)
    return float(per_gene(test, LOG_R[best]).sum())


def neighbour_accuracy(z: Tensor, known: Cells, z_new: Tensor, new: Cells, k: int = 15) -> float:
    """Share of new cells whose k nearest known cells in latent space vote for their type."""
    nearest = torch.cdist(z_new, z).topk(k, largest=False).indices
    votes = F.one_hot(known.cell_type[nearest], len(known.type_names)).sum(1)
    return float((votes.argmax(1) == new.cell_type).float().mean())
