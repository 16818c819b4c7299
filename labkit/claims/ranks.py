"""Data-parallel training: two ranks of a real process group (gloo), in two threads."""

import threading
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

from labkit.claims.entry import UNCHECKED, Ruling, claim, truth

PATIENCE = timedelta(seconds=30)  # with a rank that comes; a loaded machine is slow
IN_VAIN = timedelta(seconds=0.2)  # with one that is known not to come


def reduced(group, value: torch.Tensor, op, patience: timedelta = PATIENCE) -> torch.Tensor:
    """The sum, or the least, of the ranks' values."""
    options = dist.AllreduceOptions()
    options.reduceOp, options.timeout = op, patience
    group.allreduce([value], options).wait()
    return value


def no_guard(group, gradient: torch.Tensor, alone: threading.Event) -> str:
    """Add up the gradients."""
    return f"{float(reduced(group, gradient, dist.ReduceOp.SUM)):g}"


def local_skip(group, gradient: torch.Tensor, alone: threading.Event) -> str:
    """A rank whose gradient is bad goes on to its next batch by itself."""
    if not gradient.isfinite().all():
        alone.wait(60)  # at its next batch, as long as the other one waits
        return "skipped"
    try:
        return f"{float(reduced(group, gradient, dist.ReduceOp.SUM, IN_VAIN)):g}"
    except RuntimeError:
        return "waited in vain"
    finally:
        alone.set()


def agreed_skip(group, gradient: torch.Tensor, alone: threading.Event) -> str:
    """All skip if one has to."""
    sound = gradient.isfinite().all().float()
    if not reduced(group, sound.clone().reshape(1), dist.ReduceOp.MIN):
        return "skipped"
    return no_guard(group, gradient, alone)


def two_ranks(step: Callable, bad: float = torch.nan) -> list[str]:
    """What each of two ranks gets when rank 1 has a bad gradient and rank 0 has 1."""
    store, alone, results = dist.HashStore(), threading.Event(), ["", ""]

    def rank(number: int) -> None:
        group = dist.ProcessGroupGloo(store, number, 2, PATIENCE)
        results[number] = step(group, torch.tensor([bad if number else 1.0]), alone)

    threads = [threading.Thread(target=rank, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@claim(
    "D12",
    english="In data-parallel training each rank can guard itself.",
    verdict="false",
)
def each_rank_can_guard_itself(guard: Callable = local_skip) -> Ruling:
    """A NaN on rank 1 alone: no guard, a guard of its own, and one that the ranks agree on."""
    if not (dist.is_available() and dist.is_gloo_available()):
        return UNCHECKED, "This torch was built without gloo, so no two ranks can meet here."
    none, own, agreed = (two_ranks(step)[0] for step in (no_guard, guard, agreed_skip))
    return truth(own not in ("nan", "waited in vain")), (
        f"With no guard the sum on the sound rank is {none}; if the bad rank skips by itself, the "
        f"sound one {own} until its time ran out; if a flag is reduced first, both have {agreed}."
    )
