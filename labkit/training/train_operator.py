"""Training of the latent operator: energy distance to the target, a penalty, safe steps."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from math import nan

import torch
from torch import Generator, Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from labkit.models.energy import energy_distance, energy_distance_guide
from labkit.models.operator import (
    OPERATOR_GUIDE,
    OPERATOR_OFF,
    OPERATOR_REPAIRED,
    OperatorGuards,
    OperatorModel,
)
from labkit.training.carry import Move
from labkit.training.train import Run

Distance = Callable[[Tensor, Tensor], Tensor]

# The guide's four points of the operator, all at once: keywords of `operator_loss`.
PROTECTION = {
    "off": {"guards": OPERATOR_OFF, "distance": partial(energy_distance_guide, chunk=sys.maxsize)},
    "guide": {"guards": OPERATOR_GUIDE, "distance": energy_distance_guide, "penalty": 1.0},
    "repaired": {"guards": OPERATOR_REPAIRED},
}


def operator_loss(
    model: OperatorModel,
    moves: Sequence[Move],
    steps: int = 1,
    guards: OperatorGuards = OPERATOR_REPAIRED,
    penalty: float = 0.0,
    distance: Distance | None = None,
) -> Tensor:
    """Distance of the moved cells to their targets, a mean over all moved cells.

    Args:
        moves: one for each condition.
        steps: length of the rollout.
        penalty: weight of the spectral penalty, the guide's.
        distance: of two populations; None: `energy_distance`, its target's own term cached.

    Raises:
        FloatingPointError: from `guards.state`.

    Breaks when: `distance` is the guide's: the root at zero gives NaN in the first gradient.
    """
    total = sum(len(move.before) for move in moves)
    if not total:
        raise ValueError("moves: expected at least one, with cells before it")
    parts = []
    for move in moves:
        z1 = move.apply(model, steps, guards)
        far = distance(z1, move.after) if distance else energy_distance(z1, move.reference)
        parts.append(far * (len(move.before) / total))
    if penalty:
        parts.append(penalty * model.spectral_penalty(normalise=guards.iterate))
    return torch.stack(parts).sum()


def train_operator(
    model: OperatorModel,
    moves: Sequence[Move],
    updates: int = 300,
    lr: float = 0.05,
    max_norm: float = 100.0,
    on_update: Callable[[int, float], None] = lambda update, loss: None,
    **options,
) -> Run:
    """Fit the operator to moves of training cells; latent states are constants.

    Every update sees all cells, so nothing is random: the model's seed decides the bits.

    Args:
        on_update: called after each update with its number and loss; NaN if it was refused.
        options: of `operator_loss`; `**PROTECTION["guide"]` trains as the guide does.

    Returns:
        The run: its `losses`, and what was skipped.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    run = Run(model, optimizer, CosineAnnealingLR(optimizer, updates), Generator(), max_norm)

    def loss() -> Tensor:
        try:
            return operator_loss(model, moves, **options)
        except FloatingPointError:
            return torch.tensor(nan)  # a state was refused: so is the step

    for update in range(updates):
        step = run.step(loss)
        on_update(update, step.loss)
    return run
