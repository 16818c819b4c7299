"""`train_with_crash_recovery`: a loop that can lose a batch, but not the run."""

import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from labkit.guide.same_noise import random_state, set_random_state
from labkit.training.checkpoint import VERSIONS, load_checkpoint, non_finite, save_checkpoint
from labkit.training.safe_step import Step, safe_step


class TrainingCrashed(RuntimeError):
    """A numerical failure; the last good state and the crashing batch are on disk."""


@dataclass(eq=False)
class Recovery:
    """What a run did. ``losses`` has one entry a batch: None where the step was refused."""

    path: Path
    losses: list[float | None] = field(default_factory=list)
    skipped: int = 0
    saved_at: tuple[int, int] | None = None  # epoch and batch of the last good state

    def __repr__(self) -> str:
        where = "nothing saved" if self.saved_at is None else f"saved at {self.saved_at}"
        return f"Recovery({len(self.losses)} batches, {self.skipped} skipped, {where})"


def train_with_crash_recovery(
    model: nn.Module,
    loader: Iterable,
    train_step: Callable[[nn.Module, Any], Tensor],
    optimizer: torch.optim.Optimizer,
    n_epochs: int = 1,
    path: str | Path = "last_good_state.pt",
    every: int = 100,
    skip: int = 0,
    max_norm: float = 100.0,
    resume: bool = False,
    also: dict[str, Any] | None = None,
    generators: Iterable[Generator] = (),
) -> Recovery:
    """Train; keep a last state that was verified, and the batch that crashed apart from it.

    The loop itself runs backward and the optimizer, so that it can look in between: a step whose
    loss or gradient is not finite is not taken, and the parameters keep their bits.

    Args:
        loader: gives the batches; the same ones in the same order from the same random state.
        train_step: ``train_step(model, batch)`` returns the loss with its graph. It neither runs
            backward nor steps.
        path: of the last good state. The crashing batch goes to the same name with ``.crash``.
        every: batches between two saves; one is also made at the start and at the end.
        skip: refused batches in a row that are skipped before the run crashes.
        max_norm: longer gradients are scaled down to it.
        resume: continue from `path`, if it is there, to the bits of an uninterrupted run.
        also: other things with a ``state_dict``, such as a scheduler; those with a ``step`` and a
            ``last_epoch`` (the schedulers) are stepped after each step that was taken.
        generators: that training draws from, besides the global ones and the loader's.

    Returns:
        The losses and what was skipped.

    Raises:
        TrainingCrashed: more than `skip` numerical failures in a row, or NaN or Inf in the state
            that was to be saved. `path` still holds the last good one.
        TypeError: `train_step` returned no tensor with a graph.
        Everything else that goes wrong (out of memory, wrong shapes) passes through as it is.

    Breaks when: a state in `also` holds an infinity on purpose (ReduceLROnPlateau's first best):
        nothing is saved, and it says so. A loss scaler is used: let bfloat16 do without.

    The guide's original is blind where (each shown in a test):
        It saves what is there: after a finite loss with a NaN gradient, NaN as "last good".
        The file holds the batch of the save, not the one that crashed.
        Optimizer, random state and place in the data are not saved; a resumed run is another run.
        A crash in the middle of the save destroys the only copy.
        It looks after the step, when the parameters are poisoned, for NaN only; a float raises.
        It catches every RuntimeError, out of memory and wrong shapes too, with the same advice.

    Source: the guide, 4.4.
    """
    generators = [*generators, *_own(loader)]
    parts = {"model": model, "optimizer": optimizer, **(also or {})}
    run = Recovery(Path(path))
    loop = _Loop(run, parts, model, train_step, generators, max_norm, skip)
    epoch, done = loop.resume() if resume and run.path.exists() else (0, 0)
    while epoch < n_epochs:
        loop.epoch, loop.began = epoch, loop.began or random_state(generators)
        set_random_state(loop.began, generators)
        for number, batch in enumerate(loader):
            if number < done:
                continue
            loop.arrive(number)
            if number % every == 0:
                loop.save(epoch, number)
            loop.take(batch, number)
        epoch, done, loop.began = epoch + 1, 0, None
    loop.inside, loop.began = False, random_state(generators)
    loop.save(epoch, 0)
    return run


@dataclass(eq=False)
class _Loop:
    run: Recovery
    parts: dict[str, Any]
    model: nn.Module
    train_step: Callable
    generators: list[Generator]
    max_norm: float
    skip: int
    in_a_row: int = 0
    epoch: int = 0
    inside: bool = True  # an epoch has begun
    began: dict | None = None  # random state at the start of the epoch: it orders the data
    later: dict | None = None  # random state of the batch to resume at

    def arrive(self, number: int) -> None:
        """After the batches that were done before the crash: the noise goes on where it was."""
        if self.later is not None:
            set_random_state(self.later, self.generators)
            self.later = None

    def state(self, epoch: int, batch: int) -> dict:
        """All that decides how training goes on from here."""
        return {
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "random": random_state(self.generators),
            "began": self.began,
            "epoch": epoch,
            "batch": batch,
            "inside": self.inside,
            "losses": list(self.run.losses),
        }

    def save(self, epoch: int, batch: int) -> None:
        state = self.state(epoch, batch)
        if bad := non_finite(state):
            raise self.crashed(f"NaN or Inf in {', '.join(bad)}: not saved")
        save_checkpoint(self.run.path, state)
        self.run.saved_at = (epoch, batch)

    def resume(self) -> tuple[int, int]:
        state = load_checkpoint(self.run.path)
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        self.run.losses[:] = state["losses"]
        self.began = state["began"]
        self.later = state["random"] if state["inside"] else None
        return state["epoch"], state["batch"]

    def take(self, batch: Any, number: int) -> None:
        """One step, or a refusal that is counted."""
        before = random_state(self.generators)
        step = self._step(batch)
        self.run.losses.append(step.loss if step.accepted else None)
        if step.accepted:
            self.in_a_row = 0
            for part in self.parts.values():
                if hasattr(part, "step") and hasattr(part, "last_epoch"):
                    part.step()
            return
        self.run.skipped, self.in_a_row = self.run.skipped + 1, self.in_a_row + 1
        print(f"⚠️  {step.reason} at epoch {self.epoch}, batch {number}: the step was not taken")
        if self.in_a_row > self.skip:
            crash = Path(f"{self.run.path}.crash")
            state = {**self.state(self.epoch, number), "random": before}
            _write(crash, {**state, "crashing_batch": plain(batch), "reason": step.reason})
            print(f"The crashing batch and the state before it: {crash}")
            raise self.crashed(f"epoch {self.epoch}, batch {number}: {step.reason}")

    def crashed(self, reason: str) -> TrainingCrashed:
        kept = f"the last good state is in {self.run.path}, from (epoch, batch) {self.run.saved_at}"
        print(f"Error: {reason}\n{kept}")
        return TrainingCrashed(f"{reason}; {kept}" if self.run.saved_at else reason)

    def _step(self, batch: Any) -> Step:
        def loss() -> Tensor:
            value = self.train_step(self.model, batch)
            if not isinstance(value, Tensor) or not value.requires_grad:
                kind = "a tensor without a graph" if isinstance(value, Tensor) else repr(value)
                raise TypeError(
                    f"train_step: expected the loss, a tensor with its graph; got {kind}. "
                    "Leave backward, optimizer.step() and .item() to the loop."
                )
            return value

        optimizer, named = self.parts["optimizer"], self.model.named_parameters()
        try:
            return safe_step(loss, optimizer, named, self.max_norm, self.model.buffers())
        except FloatingPointError as error:  # a guard that refuses
            optimizer.zero_grad(set_to_none=True)
            return Step(False, str(error), float("nan"), float("nan"))


def _own(loader: Iterable) -> list[Generator]:
    """The loader's own generators: they order the data."""
    sampler = getattr(loader, "sampler", None)
    found = [getattr(loader, "generator", None), getattr(sampler, "generator", None)]
    return list({id(g): g for g in found if isinstance(g, Generator)}.values())


def plain(value: Any) -> Any:
    """A batch as tensors, numbers, words, lists and dicts: what loads without running code."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if hasattr(value, "__array__"):
        try:
            return torch.as_tensor(value).clone()
        except TypeError:  # an array of words
            return plain(value.tolist())
    return repr(value)


def _write(path: Path, content: dict) -> None:
    """Whole or not at all. Unlike a good state, this one may hold NaN."""
    data, aside = io.BytesIO(), Path(f"{path}.tmp")
    torch.save({"versions": VERSIONS, "state": content}, data)
    with open(aside, "wb") as file:
        file.write(data.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
