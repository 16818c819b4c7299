"""A training that can be left at any step and taken up again, if all of its state was kept."""

from copy import deepcopy
from functools import lru_cache
from typing import Any

import torch
from torch import Generator, Tensor

from labkit.cells.data import Cells, load_pbmc
from labkit.models.guards import REPAIRED
from labkit.models.vae import NBVAE
from labkit.probes.report import Report
from labkit.probes.trace import trace
from labkit.training.train import batch_loss, shuffled

State = dict[str, Any]
STEPS = 6
STOPPED = (  # a hint for a function that saves, and raises
    "your function raised an error in the middle of the training, and ended it. A state that is "
    "not good is no reason to stop here: return without writing, so that the last good file stays."
)
PARTS = {"model", "optimizer", "random numbers", "step"}  # without one of them it is another run


class Training:
    """A training of the real model, from its beginning: 6 steps of Adam on 16 real cells each."""

    def __init__(self) -> None:
        self.model, self.noise, self.step = deepcopy(_fresh()), Generator().manual_seed(7), 0
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3, fused=True)
        self.found: set[str] = set(PARTS)

    def batch(self) -> Cells:
        return _cells()[shuffled(len(_cells()), 3, self.step)[:16]]

    def loss(self, batch: Cells) -> Tensor:
        return batch_loss(self.model, batch, REPAIRED, self.noise)

    def advance(self, spoil: bool = False) -> Tensor:
        """One step without any look at it; `spoil`: its loss is finite, its gradient is not."""
        self.optimizer.zero_grad()
        loss = self.loss(self.batch())
        if spoil:
            loss = loss + (self.model.encoder.fc_mu.weight * 0).sum().sqrt()  # slope at 0
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return loss.detach()

    def finish(self) -> Report:
        """The steps that are left; the last one is traced."""
        while self.step < STEPS - 1:
            self.advance()
        batch = self.batch()
        return trace(lambda: self.loss(batch), model=self.model)

    def state(self) -> State:
        """A copy of all that decides how the training goes on."""
        parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        now = {"random numbers": self.noise.get_state(), "batch": self.batch().counts}
        return deepcopy(parts | now | {"step": self.step})

    def restore(self, state: State) -> None:
        """Take over what a file holds; the rest begins anew."""
        self.found = PARTS & state.keys()
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        if "optimizer" in state:
            self.optimizer.load_state_dict(state["optimizer"])
        if "random numbers" in state:
            self.noise.set_state(state["random numbers"])


@lru_cache(maxsize=1)
def _cells() -> Cells:
    return load_pbmc().train


@lru_cache(maxsize=1)
def _fresh() -> NBVAE:
    return NBVAE.for_cells(_cells())
