"""Training that cannot be poisoned: a step happens whole or not at all."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite

import torch
from torch import Tensor, nn

from labkit.models.data import Cells, load_pbmc, validate_counts
from labkit.models.guards import REPAIRED, Guards
from labkit.models.vae import NBVAE, elbo_loss


@dataclass(frozen=True)
class Step:
    """What one step did; `reason` is empty when it was accepted."""

    accepted: bool
    reason: str
    loss: float
    norm: float


def safe_step(
    loss: Tensor | Callable[[], Tensor],
    optimizer: torch.optim.Optimizer,
    params: Iterable[nn.Parameter],
    max_norm: float = 10.0,
    buffers: Iterable[Tensor] = (),
) -> Step:
    """Loss finite, backward, every gradient finite, float64 norm, clip, step; or nothing.

    Args:
        loss: a scalar, or a function that computes it (then `buffers` can be put back).
        max_norm: longer gradients are scaled down to this length.
        buffers: what the forward pass may change, such as running means.

    Returns:
        The step. Refused: parameters, optimizer state and `buffers` have the bits they had and no
        gradient is left behind. Random draws of the forward pass stay drawn, so that the next
        try sees other noise.
    """
    params, buffers = list(params), list(buffers)
    before = [buffer.clone() for buffer in buffers]
    optimizer.zero_grad(set_to_none=True)
    value = loss() if callable(loss) else loss
    size, norm, reason = float(value.detach()), float("nan"), ""
    if not isfinite(size):
        reason = f"loss is {size}"
    else:
        value.backward()
        norm, reason = _norm(params)
    if reason:
        optimizer.zero_grad(set_to_none=True)
        for buffer, old in zip(buffers, before, strict=True):
            buffer.copy_(old)
        return Step(False, reason, size, norm)
    if norm > max_norm:
        torch._foreach_mul_([p.grad for p in params if p.grad is not None], max_norm / norm)
    optimizer.step()
    return Step(True, "", size, norm)


def _norm(params: list[nn.Parameter]) -> tuple[float, str]:
    """Length of all gradients together in float64, and a reason if an element is not finite."""
    grads = {i: p.grad for i, p in enumerate(params) if p.grad is not None}
    lengths = [torch.linalg.vector_norm(g, dtype=torch.float64) for g in grads.values()]
    norm = float(torch.stack(lengths).norm()) if lengths else 0.0
    if isfinite(norm):
        return norm, ""
    bad = [i for i, g in grads.items() if not g.isfinite().all()]
    return norm, f"gradient not finite in parameters {bad}" if bad else "gradient norm overflows"


def train_vae(
    model: NBVAE,
    cells: Cells,
    epochs: int = 20,
    batch_size: int = 64,
    lr: float = 5e-3,
    seed: int = 0,
    max_norm: float = 100.0,
    guards: Guards = REPAIRED,
    on_epoch: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Fit the model to the cells that are not held out; returns the mean loss of each epoch."""
    cells = cells.train
    validate_counts(cells.counts, model.encoder.n_genes)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    steps = max(1, len(cells) // batch_size)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    history = []
    for epoch in range(epochs):
        losses = []
        for batch in torch.randperm(len(cells), generator=generator).chunk(steps):
            x, tissue, library = cells.counts[batch], cells.tissue[batch], cells.library[batch]
            loss, _ = elbo_loss(x, tissue, model, library, guards, generator=generator)
            losses.append(safe_step(loss, optimizer, model.parameters(), max_norm).loss)
            scheduler.step()
        history.append(sum(losses) / len(losses))
        if on_epoch:
            on_epoch(epoch, history[-1])
    return history


@lru_cache
def _trained(seed: int, epochs: int) -> NBVAE:
    cells = load_pbmc()
    model = NBVAE.for_cells(cells.train, seed=seed)
    train_vae(model, cells, epochs=epochs, seed=seed)
    return model


def trained_vae(seed: int = 0, epochs: int = 20) -> NBVAE:
    """A model trained on the packaged cells: trained once a process, a fresh copy each call."""
    return deepcopy(_trained(seed, epochs))
