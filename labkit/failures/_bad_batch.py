"""Training on real cells, one of whose counts is spoilt."""

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Generator, Tensor
from torch.optim import Adam, Optimizer

from labkit.cells.data import Cells, load_pbmc
from labkit.failures._halves import trained_halves
from labkit.models.guards import Guard
from labkit.models.likelihood import kl_standard_normal, nb_log_likelihood_from_logs
from labkit.models.vae import NBVAE, sample_z

CAP_LOGVAR = Guard("logvar", "straight_through", -10.0, 10.0)
CAP_LOG_R = Guard("log_r", "straight_through", -8.0, 12.0)
CELLS = 64  # in a batch
CELL, GENE = 3, 5  # of the entry that is spoilt


def train(
    model: NBVAE, optimizer: Optimizer, number: int, power: float | None = None, step: bool = True
) -> float:
    """One training step on batch `number`, one of its counts spoilt if a power is given."""
    model.train()
    optimizer.zero_grad()
    value = loss(model, batch(number, model.encoder.fc_mu.weight.dtype, power), number)
    value.backward()
    if step:
        optimizer.step()
    return float(value.detach())


def loss(model: NBVAE, cells: Cells, seed: int) -> Tensor:
    """Negative ELBO in nats per cell; a BatchNorm ends the encoder."""
    mu, logvar = model.encoder(cells.counts, cells.tissue)
    mu, logvar = model.norm(mu), CAP_LOGVAR(logvar)
    z = sample_z(mu, logvar, Generator().manual_seed(seed))
    log_mu, log_r = model.decoder(z, cells.tissue, cells.library, as_logs=True)
    log_p = nb_log_likelihood_from_logs(cells.counts, log_mu, CAP_LOG_R(log_r))
    return kl_standard_normal(mu, logvar).mean() - log_p.sum(-1).mean()


@torch.no_grad()
def evaluate(model: NBVAE) -> float:
    """The loss of another batch in eval mode, where BatchNorm uses its running statistics."""
    return float(loss(model.eval(), batch(4, model.encoder.fc_mu.weight.dtype), 4))


def prepared(optimizer: str, dtype: torch.dtype = torch.float32) -> tuple[NBVAE, Optimizer]:
    """The trained model with a BatchNorm, and a fresh optimizer: Adam, or SGD with momentum."""
    model = trained_halves("on").to(dtype)
    if optimizer == "Adam":
        return model, Adam(model.parameters(), lr=1e-3)
    return model, torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)


def batch(number: int, dtype: torch.dtype, power: float | None = None) -> Cells:
    """64 real cells, counted round; with a power, one of their counts is 10 to that power."""
    start = CELLS * (number % 8)
    cells = _cells(dtype)[start : start + CELLS]
    if power is None:
        return cells
    counts = cells.counts.clone()
    counts[CELL, GENE] = torch.tensor(10.0, dtype=torch.float64) ** power
    return replace(cells, counts=counts)


@lru_cache(maxsize=2)
def _cells(dtype: torch.dtype) -> Cells:
    return load_pbmc().train.to(dtype)
