"""One rank of a data-parallel training, in a process of its own; `_ranks` starts and asks it.

It reads messages from its standard input and answers on its standard output, both pickled.
"""

import os
import pickle
import sys
from copy import deepcopy
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Generator, Tensor

from labkit.cells.data import Cells, load_pbmc
from labkit.models.vae import NBVAE, elbo_loss
from labkit.probes.trace import trace

STEPS, CELLS, RATE = 3, 16, 1e-3
PATIENCE = timedelta(seconds=60)  # until the ranks have met
SICK = 0  # the step in which rank 1 is sick


@cache
def _first() -> NBVAE:
    return NBVAE.for_cells(load_pbmc().train)


def fresh() -> NBVAE:
    """The real model at its beginning."""
    return deepcopy(_first())


@cache
def _cells() -> Cells:
    return load_pbmc().train


def batch(step: int, rank: int) -> Cells:
    """The cells that a rank sees in a step."""
    first = (2 * step + rank) * CELLS
    return _cells()[first : first + CELLS]


def loss_of(model: NBVAE, step: int, rank: int, accident: str = "none") -> Tensor:
    """Negative ELBO of the rank's own cells; an accident is planted in it."""
    cells, noise = batch(step, rank), Generator().manual_seed(10 * step + rank)
    x = (part.to(next(model.parameters()).dtype) for part in (cells.counts, cells.tissue))
    loss = elbo_loss(*x, model, generator=noise)[0]
    if accident == "NaN loss":
        return loss * torch.nan
    if accident == "NaN gradient":  # a root at 0: the loss is finite
        return loss + (model.encoder.fc_mu.weight * 0).sum().sqrt()
    return loss


class Rank:
    """The training of one rank, and its line to whoever decides."""

    def __init__(self, rank: int, answers: Any):
        self.rank, self.answers = rank, answers

    def tell(self, *message: Any) -> None:
        pickle.dump(message, self.answers)
        self.answers.flush()

    def hear(self) -> tuple:
        return pickle.load(sys.stdin.buffer)

    def train(self, accident: str, meet: str, wait: float) -> None:
        """Three steps; tell how they went."""
        dist.init_process_group(
            "gloo",
            f"file://{meet}",
            rank=self.rank,
            world_size=2,
            timeout=PATIENCE,
        )
        # Two lines, so that a vote never answers a gradient: their sizes differ.
        limit = timedelta(seconds=wait)
        self.votes, self.means = (dist.new_group([0, 1], timeout=limit) for _ in range(2))
        self.model = fresh()
        self.done, self.losses, self.late, self.entered = [], [], "", {"votes": 0, "means": 0}
        tracing = trace(model=self.model)
        with tracing:
            for step in range(STEPS):
                try:
                    self.step(step, accident if (self.rank, step) == (1, SICK) else "none")
                except RuntimeError as error:  # nobody came
                    self.late = f"step {step}: {str(error).partition(chr(10))[0]}"
                    break
                tracing.step()
        report = tracing.report if self.rank == 0 else None
        dist.destroy_process_group()
        bad = sum(not p.isfinite().all() for p in self.model.parameters())
        self.tell("end", self.losses, self.done, bad, self.late, self.entered, report)

    def step(self, step: int, accident: str) -> None:
        """Backward, a decision, the mean of all ranks' gradients, and a step against it."""
        self.model.zero_grad()
        loss = loss_of(self.model, step, self.rank, accident)
        loss.backward()
        self.losses.append(loss.item())
        parameters = list(self.model.parameters())
        flat = torch.cat([p.grad.view(-1) for p in parameters])
        if not self.decided(bool(loss.isfinite()) and bool(flat.isfinite().all())):
            return
        self.entered["means"] += 1
        dist.all_reduce(flat, group=self.means)  # the sum over all ranks: all must come
        flat /= 2
        for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            p.grad = part.view_as(p)
        with torch.no_grad():
            torch._foreach_sub_(parameters, [p.grad for p in parameters], alpha=RATE)
        self.done.append(step)

    def decided(self, finite: bool) -> bool:
        """Ask whether this step is to be taken; on the way there may be votes."""
        self.tell("ask", finite)
        while True:
            word, value = self.hear()
            if word == "go":
                return value
            if word == "stop":
                raise RuntimeError(value)
            vote = torch.tensor(float(value))
            self.entered["votes"] += 1
            try:
                dist.all_reduce(vote, dist.ReduceOp.MIN, group=self.votes)
                self.tell("vote", vote.item())
            except RuntimeError as error:
                self.tell("late", str(error).partition("\n")[0])


def main() -> None:
    """Train whenever asked to, until the standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what others print does not disturb the answers
    torch.set_num_threads(1)
    rank = Rank(int(sys.argv[1]), answers)
    fresh()
    rank.tell("ready")
    while True:
        try:
            accident, meet, wait = rank.hear()
        except EOFError:
            return
        rank.train(accident, meet, wait)


if __name__ == "__main__":
    main()
