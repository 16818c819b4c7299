"""`watch`: the one function that starts it all."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from labkit.watch import arguments
from labkit.watch.watcher import Watch


def watch(
    model: nn.Module | Sequence[nn.Module] | None,
    optimizers: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    step: Callable[..., Any] | None = None,
    *,
    scaler: Any = None,
    keep: Sequence[Any] = (),
    on_trigger: str = "raise",
    limit: int = 5,
    every: int = 20,
    ring: int = 2,
    safe: bool = False,
    folder: str | Path | None = "capsules",
) -> Watch:
    """Watch a training: check every step, and explain the first that is not finite.

    After backward and before ``optimizer.step`` the sums of all gradients are looked at. When one
    is not finite the optimizer does nothing, the step is run again from the same state and the
    same random numbers under `labkit.trace`, and the report names the line. Every `every` steps
    the whole state is verified and copied; where a fault was born inside of an optimizer, the
    last copy is restored and the steps since are run again until the guilty one is found.

    Example:
        watched = watch(model, optimizer)
        for batch in watched.over(loader):  # was: for batch in loader
            ...                             # the body of the loop stays as it is
        watched.close()

        with watch(model, optimizer, step=train_step) as watched:
            for batch in loader:
                loss = watched(batch)       # was: loss = train_step(batch)

    Args:
        model: a module, several, or None if the optimizers hold bare tensors.
        optimizers: every optimizer that steps.
        step: a function that runs a whole training step; leave it out to watch a loop's body.
        scaler: the GradScaler, if there is one. Its refusals are its own business until there
            are 10 in a row, or until its scale is below 1.
        keep: what else a step changes and reads: schedulers and other objects with a
            ``state_dict``, and generators of torch, numpy or Python. The global generators of
            all three are always kept.
        on_trigger: ``raise`` a `Blowup`; ``skip``: go on from the state before the guilty step;
            ``rollback``: go on from the last verified state, and from the one before it where
            that does not help. In all three parameters, buffers and optimizer state stay finite.
        limit: of triggers in a row; one more raises. An accepted step ends a row of skips, a
            verified state a row of roll-backs.
        every: how many batches lie between two verified states; that many stay in memory.
        ring: how many verified states are kept, each as large as parameters, gradients, buffers
            and optimizer state together.
        safe: keep a copy of each batch, for steps that write into their batch.
        folder: where a capsule of each new culprit is written (see `labkit replay`); None: none.

    Returns:
        A `Watch`: iterate ``over`` batches or call it; its ``triggers`` hold the reports.

    Raises:
        TypeError, ValueError: an argument of the wrong kind.

    Breaks when: a step reads what is neither watched nor kept (a counter, an open file): its
        replay is another step, and the trigger says "not reproduced". A NaN that reaches neither
        gradient, loss, parameter, buffer nor optimizer state is not seen. In distributed training
        watch refuses to start: a replay on one rank would wait for the others.
    """
    choice = arguments.choice(on_trigger)
    limit, every, ring = (
        arguments.whole(name, value)
        for name, value in {"limit": limit, "every": every, "ring": ring}.items()
    )
    return Watch(
        model, optimizers, step, scaler, keep, choice, limit, every, ring, bool(safe), folder
    )
