"""Find the first operation that makes a NaN or an infinity out of finite numbers, by halving."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from labkit.guide.check_tensor import check_tensor
from labkit.guide.leaves import leaves
from labkit.probes.frames import NOWHERE, locate
from labkit.probes.tools import tool_of


@dataclass(frozen=True)
class Birth:
    """The first operation with finite inputs and an output that is not."""

    op: str  # "exp"
    number: int  # counted from 0, in the order in which they run
    total: int
    runs: int  # of the program, the counting one included
    module: object  # the innermost one that ran, or None
    file: str
    line: int  # of the user's code; 0 in backward, where none of it runs
    node: str  # of autograd that runs: "SqrtBackward0"; "" in forward
    inputs: tuple[str, ...]  # by `check_tensor`
    output: str


class _Enough(Exception):
    """The window has ended."""


class _Window(TorchDispatchMode):
    """Counts operators; between `start` and `stop` it asks whether any gives birth.

    The answer is one tensor that grows on the device, so that nothing waits until it is read.
    """

    def __init__(self, start: int, stop: float):
        super().__init__()
        self.start, self.stop, self.count = start, stop, 0
        self.any: Tensor | None = None
        self.seen: tuple | None = None  # of the last operator in the window

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tool = tool_of(func)
        if tool is None or tool.quiet or tool.unset or tool.read:
            return func(*args, **kwargs)
        if self.count >= self.stop:
            raise _Enough
        self.count += 1
        if self.count <= self.start:
            return func(*args, **kwargs)
        given = [*leaves(args), *leaves(kwargs)]
        before = None if _infinite_scalar((*args, *kwargs.values())) else _all_finite(given)
        told = tuple(check_tensor(t) for _, t in given) if self._last else ()
        out = func(*args, **kwargs)
        after = _all_finite(leaves(out))
        if before is not None and after is not None:
            born = before & ~after
            self.any = born if self.any is None else self.any | born
        if self._last:
            node = torch._C._current_autograd_node()
            place = locate(sys._getframe(1)) if node is None else NOWHERE
            self.seen = tool.name, place, node.name() if node else "", told, out
        return out

    @property
    def _last(self) -> bool:
        return self.stop - self.start == 1


def _infinite_scalar(args) -> bool:
    """An infinity written down by the user, such as a mask's."""
    return any(isinstance(a, float) and not math.isfinite(a) for a in args)


def _all_finite(pairs) -> Tensor | None:
    """One boolean tensor; None where there is nothing to ask."""
    dense = (t for _, t in pairs if t.layout is torch.strided)
    found = [t.isfinite().all() for t in dense if t.is_floating_point() or t.is_complex()]
    return torch.stack([f.to(found[0].device) for f in found]).all() if found else None


def first_birth(program: Callable[[], object]) -> Birth | None:
    """Halve the program's operators until one is left.

    Each run asks one question of half of what is left and ends there, so a program of n
    operators takes log2(n) + 3 runs at most. "Some operator up to number k gave birth" can only
    turn from no to yes as k grows, so halving is allowed; "value k is bad" would not be, since a
    NaN can be masked and a mask may hold infinities on purpose. Those are not births.

    Args:
        program: runs everything once, backward included; it must do the same in every call.

    Returns:
        The birth, or None if no operator gave one.

    Breaks when: the program does not repeat itself; the backward runs in threads of its own (on
        an accelerator), which this does not see.
    """
    total, born = _ask(program, 0, math.inf)
    if not born:
        return None
    clean, bad, runs = 0, total, 1
    while bad - clean > 1:
        middle = (clean + bad) // 2
        runs += 1
        if _ask(program, clean, middle)[1]:
            bad = middle
        else:
            clean = middle
    window = _run(program, clean, bad)
    if window.any is None or not bool(window.any):
        raise RuntimeError(
            "the program did not repeat itself: name its own generators in generators="
        )
    op, place, node, inputs, out = window.seen
    made = [check_tensor(t) for _, t in leaves(out)]
    file = place.code.co_filename if place.code else ""
    bad_output = next((text for text in made if "contains" in text), made[0])
    return Birth(
        *(op, clean, total, runs + 1, place.module, file, place.line if file else 0),
        *(node, inputs, bad_output),
    )


def _ask(program, start: int, stop: float) -> tuple[int, bool]:
    window = _run(program, start, stop)
    return window.count, window.any is not None and bool(window.any)


def _run(program, start: int, stop: float) -> _Window:
    window = _Window(start, stop)
    try:
        with window:
            program()
    except _Enough:
        pass
    return window
