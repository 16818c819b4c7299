"""Optimizer steps: when they run, what they had in hand and what they changed."""

import math
import threading
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from labkit.probes.gradients import Gradients
from labkit.probes.measure import measure
from labkit.probes.record import Recorder
from labkit.probes.stats import Stats
from labkit.probes.tape import Tape


class Move:
    """What one optimizer step did to one parameter."""

    __slots__ = (
        *("began", "event", "gradient", "leaf", "lr", "origin", "place", "resting", "stats"),
        *("returned", "step", "still", "writer"),
    )

    def __init__(self, leaf: Tensor, step: int, gradient: Stats | None, lr: float):
        self.leaf, self.step, self.gradient, self.lr = leaf, step, gradient, lr
        self.origin = 0  # the event that wrote the gradient last
        self.stats: Stats | None = None
        self.still = 0.0  # share of the (sampled) entries with a gradient that did not change
        self.began = self.event = -1  # number of events when the step began and ended
        self.writer: int | None = None  # the event that moved the parameter
        self.returned = False  # it moved, and stands again where it stood before the last step
        self.place = None  # where optimizer.step was called
        self.resting = False  # the rate is zero, and nothing is there that would raise it


SAMPLE = 4096  # entries of a parameter that are compared before and after


def _sample(tensor: Tensor) -> Tensor:
    """Evenly spaced entries, copied."""
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLE)].clone()


class Training:
    """Watches every torch optimizer that steps in this thread."""

    def __init__(self, tape: Tape, recorder: Recorder, gradients: Gradients, calls):
        self.tape, self.recorder, self.gradients, self.calls = tape, recorder, gradients, calls
        self.optimizers: dict[int, Any] = {}
        self.stepped: list[tuple[int, int]] = []  # step, id of the optimizer
        self.moves: list[Move] = []
        self.states: list[tuple[int, int, str, Stats]] = []  # step, event, name, stats
        self._began = 0
        self._before: list[tuple[Move, Tensor]] = []
        self._last: dict[int, tuple[Move, Tensor]] = {}  # id of a leaf -> its last move, from where
        self._thread = threading.get_ident()
        self._handles = ()

    def open(self) -> None:
        self._handles = (
            register_optimizer_step_pre_hook(self._pre),
            register_optimizer_step_post_hook(self._post),
        )

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = ()

    def add(self, optimizer) -> None:
        self.optimizers[id(optimizer)] = optimizer

    def members(self) -> set[int]:
        """Ids of the parameters that some optimizer has."""
        optimizers = self.optimizers.values()
        return {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}

    def _pre(self, optimizer, args, kwargs) -> None:
        if threading.get_ident() != self._thread:
            return
        with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction(), torch.no_grad():
            if self.gradients.unsettled:
                self.gradients.settle()
            self.add(optimizer)
            self._began = len(self.tape.events)
            self.stepped.append((self.tape.step, id(optimizer)))
            place = self.tape.here(2)
            self._before = [
                (self._move(leaf, group, optimizer, place), _sample(leaf))
                for group in optimizer.param_groups
                for leaf in group["params"]
            ]
            for move, start in self._before:
                last, before = self._last.get(id(move.leaf), (None, None))
                move.returned = last is not None and last.still < 1 and torch.equal(start, before)
                self._last[id(move.leaf)] = move, start
        self.tape.optimizing = type(optimizer).__name__
        if type(optimizer).__module__.startswith("torch.optim") and not (args[1:] or kwargs):
            self.tape.stepping = place  # without a closure, every op in it has this one line

    def _move(self, leaf: Tensor, group: dict, optimizer, place) -> Move:
        move = Move(leaf, self.tape.step, None, float(group.get("lr", math.nan)))
        built = group.get("initial_lr", getattr(optimizer, "defaults", {}).get("lr"))
        move.resting = move.lr == 0 and built is not None and float(built) == 0
        move.place, move.began = place, len(self.tape.events)
        if leaf.grad is None:
            return move
        known = self.tape.look(leaf.grad, None)
        move.gradient = known.stats
        move.origin = max(known.event, known.memory.writer)
        return move

    def _post(self, optimizer, args, kwargs) -> None:
        if threading.get_ident() != self._thread:
            return
        self.tape.optimizing, self.tape.stepping = "", None
        with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction(), torch.no_grad():
            for move, before in self._before:
                self._compare(move, before)
            self._state(optimizer)
        self._before = []

    def _compare(self, move: Move, before: Tensor) -> None:
        leaf = move.leaf
        move.stats = self.tape.stats(leaf)
        move.event = len(self.tape.events)
        memory = self.tape.storages.get(self.tape.key(leaf))
        move.writer = memory.writer if memory and memory.writer >= move.began else None
        gradient = leaf.grad
        moving = move.gradient is not None and move.gradient.large > 0 and gradient is not None
        if moving and gradient.layout is torch.strided:
            asked = _sample(gradient) != 0
            same = (_sample(leaf) == before) & asked
            move.still = same.sum().item() / max(asked.sum().item(), 1)
        self.moves.append(move)

    def _state(self, optimizer) -> None:
        recent = self.tape.events[self._began :]
        if recent and not any(event.bad for event in recent):
            return
        for leaf, state in optimizer.state.items():
            for name, value in state.items() if isinstance(state, dict) else ():
                if isinstance(value, Tensor) and value.is_floating_point():
                    stats = measure(value, counted=0)
                    memory = self.tape.storages.get(self.tape.key(value))
                    if stats.bad and memory is not None:
                        owner = self.tape.names.get(id(leaf), ("", "parameter"))[1]
                        what = f"{name} of {owner}"
                        self.states.append(
                            (self.tape.step, max(memory.writer, memory.maker), what, stats)
                        )
