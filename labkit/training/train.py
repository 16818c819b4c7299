"""Training that comes back: bad steps are skipped, a poisoned state is rolled back."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from math import nan
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from labkit.cells.data import Cells, load_pbmc, validate_counts
from labkit.models.guards import REPAIRED, Guards
from labkit.models.vae import NBVAE, elbo_loss
from labkit.training.checkpoint import load_checkpoint, non_finite, save_checkpoint
from labkit.training.safe_step import Step, safe_step

EPOCHS = 20  # of `trained_vae`: 1.5 s of one core, and longer training fits the held-out no better
PARTS = ("model", "optimizer", "scheduler")  # of a run: each has a state_dict
COUNTS = ("losses", "skipped", "in_a_row", "rollbacks")


class TrainingFailed(RuntimeError):
    """Neither skipping nor going back to the last verified state helped."""


@dataclass(eq=False)
class Run:
    """One training run: all that decides its next step, and the last state that was verified.

    A state is verified when it is finite and the step from it was accepted, or when it was saved.
    After more than `skip_limit` refusals in a row, or when NaN or Inf is found in the state, the
    run goes back to it: parameters, buffers, optimizer, scheduler, noise. The data position goes
    on, behind the batches that failed. All that is random must draw from `generator`.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    generator: Generator
    max_norm: float = 100.0
    skip_limit: int = 5
    rollback_limit: int = 3
    verify_every: int = 20
    verified: dict | None = None
    losses: list[float | None] = field(default_factory=list)  # one per step; None: refused
    skipped: int = 0
    in_a_row: int = 0
    rollbacks: int = 0

    def __repr__(self) -> str:
        return f"Run({len(self.losses)} steps, {self.skipped} skipped, {self.rollbacks} rollbacks)"

    def step(self, loss: Callable[[], Tensor]) -> Step:
        """Take one safe step and count it; go back where skipping does not help.

        Raises:
            TrainingFailed: there is no verified state, or it was used `rollback_limit` times.
        """
        due = self.verified is None or len(self.losses) % self.verify_every == 0
        candidate = self.snapshot() if due else None
        named, buffers = self.model.named_parameters(), self.model.buffers()
        step = safe_step(loss, self.optimizer, named, self.max_norm, buffers)
        self.losses.append(step.loss if step.accepted else None)
        self.in_a_row = 0 if step.accepted else self.in_a_row + 1
        self.skipped += not step.accepted
        if step.accepted:
            self.scheduler.step()
            self.verified = candidate or self.verified
        elif self.in_a_row > self.skip_limit:
            self.roll_back(step.reason)
        return step

    def snapshot(self) -> dict | None:
        """A copy of the state; None if it held NaN or Inf, and the run went back instead."""
        parts = {name: getattr(self, name).state_dict() for name in PARTS}
        state = deepcopy({**parts, "generator": self.generator.get_state()})
        if bad := non_finite(state):
            self.roll_back(f"NaN or Inf in {', '.join(bad)}")
            return None
        return state

    def restore(self, state: dict) -> None:
        """Take over a copy of a state: an optimizer trains on the very tensors that it loads."""
        state = deepcopy(state)
        for name in PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"])

    def roll_back(self, reason: str) -> None:
        """Go back to the verified state."""
        if self.verified is None or self.rollbacks >= self.rollback_limit:
            raise TrainingFailed(f"step {len(self.losses)}: {reason}; no way back. {self}")
        self.restore(self.verified)
        self.rollbacks, self.in_a_row = self.rollbacks + 1, 0

    def save(self, path: str | Path, recipe: dict) -> None:
        """Write a checkpoint, unless the state holds NaN or Inf."""
        if state := self.snapshot():
            counts = {name: getattr(self, name) for name in COUNTS}
            save_checkpoint(path, {"run": state, "counts": counts, "recipe": recipe})
            self.verified = state

    def resume(self, path: str | Path, recipe: dict) -> None:
        """Continue from a checkpoint of the same recipe; ValueError if it is of another."""
        content = load_checkpoint(path)
        if content["recipe"] != recipe:
            raise ValueError(
                f"{path}: expected a checkpoint of {recipe}; got {content['recipe']}. "
                "Train with those settings, or choose another file."
            )
        self.restore(content["run"])
        vars(self).update(content["counts"], verified=content["run"])


def train_vae(
    model: NBVAE,
    cells: Cells,
    epochs: int = EPOCHS,
    batch_size: int = 64,
    lr: float = 5e-3,
    seed: int = 0,
    max_norm: float = 100.0,
    guards: Guards = REPAIRED,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 40,
) -> Run:
    """Fit the model to the cells that are not held out.

    Args:
        seed: of the order of the cells and of the noise; the same seed gives the same bits.
        on_epoch: called after each epoch with its number and mean loss (nats per cell).
        checkpoint: written every `checkpoint_every` steps and at the end. If it is there
            already, training continues from it, to the bits of an uninterrupted run.

    Returns:
        The run: its `losses`, one per step, and what was skipped.
    """
    cells = cells.train
    validate_counts(cells.counts, model.encoder.n_genes)
    steps = max(1, len(cells) // batch_size)
    optimizer, generator = torch.optim.Adam(model.parameters(), lr), Generator().manual_seed(seed)
    schedule = CosineAnnealingLR(optimizer, epochs * steps)
    run = Run(model, optimizer, schedule, generator, max_norm)
    recipe = {"cells": len(cells), "epochs": epochs, "batch_size": batch_size, "lr": lr}
    recipe |= {"seed": seed, "max_norm": max_norm, "checkpoint_every": checkpoint_every}
    if checkpoint and Path(checkpoint).exists():
        run.resume(checkpoint, recipe)
    while (done := len(run.losses)) < epochs * steps:
        epoch, place = divmod(done, steps)
        batch = cells[shuffled(len(cells), seed, epoch).tensor_split(steps)[place]]
        run.step(lambda batch=batch: batch_loss(model, batch, guards, generator))
        if checkpoint and ((done + 1) % checkpoint_every == 0 or done + 1 == epochs * steps):
            run.save(checkpoint, recipe)
        if place + 1 == steps:
            kept = [loss for loss in run.losses[-steps:] if loss is not None]
            on_epoch(epoch, sum(kept) / len(kept) if kept else nan)
    return run


def shuffled(n: int, seed: int, epoch: int) -> Tensor:
    """The order of the cells in one epoch: it depends on nothing but its arguments."""
    return torch.randperm(n, generator=Generator().manual_seed(100_003 * seed + epoch))


def batch_loss(model: NBVAE, cells: Cells, guards: Guards, generator: Generator) -> Tensor:
    """The negative ELBO of one batch."""
    x, tissue, library = cells.counts, cells.tissue, cells.library
    return elbo_loss(x, tissue, model, library, guards, generator=generator)[0]


@lru_cache
def _trained(seed: int, epochs: int) -> NBVAE:
    model = NBVAE.for_cells(load_pbmc().train, seed=seed)
    train_vae(model, load_pbmc(), epochs, seed=seed)
    return model


def trained_vae(seed: int = 0, epochs: int = EPOCHS) -> NBVAE:
    """A model trained on the packaged cells: once in a process, then a fresh copy each call."""
    return deepcopy(_trained(seed, epochs))
