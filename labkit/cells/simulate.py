"""Cells whose truth is known: NB counts from a latent state that a known operator moves."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from labkit.cells.data import Cells

ANGLES = (0.6, 1.2, 0.9)  # radians that the perturbation turns the first latent plane, by tissue


@dataclass(frozen=True, eq=False)
class Truth:
    """What made the counts. A perturbed cell stands at z = operator[tissue] @ z_before."""

    perturbed: Tensor  # (cell,) bool; a cell is seen once, so the two populations are unpaired
    z_before: Tensor  # (cell, latent)
    z: Tensor  # (cell, latent), the state that was counted
    operator: Tensor  # (tissue, latent, latent), a rotation in one plane
    log_mu: Tensor  # (cell, gene)
    log_r: Tensor  # (gene,)


def simulate(
    n_cells: int = 800,
    n_genes: int = 150,
    latent_dim: int = 4,
    n_tissues: int = 2,
    n_types: int = 3,
    seed: int = 0,
) -> tuple[Cells, Truth]:
    """Draw cells of several types and tissues, half of them perturbed, and say how.

    Args:
        latent_dim: at least 2.
        n_tissues: 1 to 3; each has its own operator and its own shift of the gene profile.
        seed: same seed, same bits.

    Returns:
        Cells (a quarter held out) and the truth behind them.
    """
    if latent_dim < 2 or not 1 <= n_tissues <= len(ANGLES):
        got = f"{latent_dim} and {n_tissues}"
        raise ValueError(f"expected latent_dim >= 2 and n_tissues 1 to {len(ANGLES)}; got {got}")
    rng = np.random.default_rng(seed)
    kind, tissue = rng.integers(n_types, size=n_cells), rng.integers(n_tissues, size=n_cells)
    perturbed = rng.random(n_cells) < 0.5
    operator = np.stack([rotation(latent_dim, angle) for angle in ANGLES[:n_tissues]])
    before = 1.5 * rng.normal(size=(n_types, latent_dim))[kind]
    before = before + 0.4 * rng.normal(size=(n_cells, latent_dim))
    after = np.einsum("cij,cj->ci", operator[tissue], before)
    z = np.where(perturbed[:, None], after, before)
    score = z @ (0.5 * rng.normal(size=(latent_dim, n_genes))) + rng.normal(size=n_genes)
    score = score + 0.3 * rng.normal(size=(n_tissues, n_genes))[tissue]
    library = np.rint(rng.lognormal(np.log(4 * n_genes), 0.3, size=n_cells))
    log_mu = score - np.logaddexp.reduce(score, axis=1, keepdims=True) + np.log(library)[:, None]
    log_r = rng.normal(1.0, 0.5, size=n_genes)
    counts = rng.poisson(np.exp(log_mu - log_r) * rng.gamma(np.exp(log_r), size=log_mu.shape))
    one_hot = torch.eye(n_tissues)[torch.from_numpy(tissue)]
    cells = Cells(
        counts=_float(counts),
        library=_float(library),
        tissue=one_hot,
        cell_type=torch.from_numpy(kind),
        held_out=torch.from_numpy(rng.random(n_cells) < 0.25),
        genes=tuple(f"gene{i}" for i in range(n_genes)),
        type_names=tuple(f"type{i}" for i in range(n_types)),
        tissue_names=tuple(f"tissue{i}" for i in range(n_tissues)),
    )
    values = map(_float, (before, z, operator, log_mu, log_r))
    return cells, Truth(torch.from_numpy(perturbed), *values)


def rotation(size: int, angle: float) -> np.ndarray:
    """Turn the first plane by `angle`; leave the other directions as they are."""
    matrix = np.eye(size)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


def _float(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float32))
