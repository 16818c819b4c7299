"""Where an operation changes its state, to the bit: found by bisection over the floats."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
WORDS = ("finite", "zero", "Inf", "-Inf", "NaN")
WHOLE = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32}
DIGITS = {torch.float16: 5, torch.bfloat16: 4, torch.float32: 9, torch.float64: 17}
SPECIAL = (-3.0, -2.0, -1.0, -1e-8, 0.0, 1.0, 2.0)  # where a state may last for one float only
GRID = 1 << 12  # floats looked at before the bisection
EVERY = 1 << 16  # a dtype with so few is looked at whole


@dataclass(frozen=True)
class Span:
    """Neighbouring floats at which an operation is in one state, from `low` to `high`."""

    low: float
    high: float
    value: str
    gradient: str
    digits: int  # that tell a float from its neighbours

    @property
    def bad(self) -> bool:
        """Is value or gradient NaN or infinite?"""
        return not {self.value, self.gradient} <= {"finite", "zero"}

    @property
    def dead(self) -> bool:
        """Is the gradient exactly zero?"""
        return self.gradient == "zero"

    def __str__(self) -> str:
        low, high = (f"{end:.{self.digits}g}" for end in (self.low, self.high))
        ends = low if low == high else f"{low} to {high}"
        return f"{ends}: value {self.value}, gradient {self.gradient}"


def spans(f: Function, dtype: torch.dtype) -> tuple[Span, ...]:
    """The whole number line of a dtype, from -Inf to Inf, cut where value or gradient change.

    Args:
        f: elementwise.
        dtype: float16 and bfloat16 are looked at whole. In the others a state that lasts for less
            than one in `GRID` of all floats is found at the special points only.
    """
    top = _key(torch.tensor(torch.inf, dtype=dtype))
    whole = top < EVERY
    keys = torch.arange(-top, top + 1) if whole else _grid(top, dtype)
    codes = _codes(f, keys, dtype)
    change = (codes[1:] != codes[:-1]).nonzero()[:, 0]
    low, high = _bisected(f, keys[change], keys[change + 1], dtype)
    starts, ends = [-top, *high.tolist()], [*low.tolist(), top]
    states = [codes[0].item(), *_codes(f, high, dtype).tolist()]
    floats = (_floats(torch.tensor(side), dtype).double().tolist() for side in (starts, ends))
    digits = DIGITS[dtype]
    return tuple(Span(a, b, *_words(s), digits) for a, b, s in zip(*floats, states, strict=True))


def _bisected(f: Function, low: Tensor, high: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The neighbours between which the state changes, for cells whose ends differ."""
    found = torch.empty(0, 2, dtype=torch.int64)
    while len(low):
        first, last = _codes(f, low, dtype), high
        while (high - low > 1).any():
            middle = low + (high - low) // 2
            same = _codes(f, middle, dtype) == first
            low, high = torch.where(same, middle, low), torch.where(same, high, middle)
        found = torch.cat([found, torch.stack([low, high], 1)])
        again = _codes(f, high, dtype) != _codes(f, last, dtype)  # a third state lies between
        low, high = high[again], last[again]
    return tuple(found.unique(dim=0).T)


def _grid(top: int, dtype: torch.dtype) -> Tensor:
    even = torch.arange(-GRID, GRID + 1) * (top // GRID)
    special = [_key(torch.tensor(x, dtype=dtype)) + near for x in SPECIAL for near in (-1, 0, 1)]
    return torch.cat([even, torch.tensor([-top, top, *special])]).unique()


def _codes(f: Function, keys: Tensor, dtype: torch.dtype) -> Tensor:
    x = _floats(keys, dtype).requires_grad_()
    y = f(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    return _states(y.detach()) * len(WORDS) + _states(gradient)


def _states(t: Tensor) -> Tensor:
    nan, inf = t.isnan() * 4, (t == torch.inf) * 2 + (t == -torch.inf) * 3
    return nan + inf + (t == 0) * 1


def _words(code: int) -> tuple[str, str]:
    return WORDS[code // len(WORDS)], WORDS[code % len(WORDS)]


def _key(x: Tensor) -> int:
    """The rank of a float among the floats of its dtype; 0 is 0, and its negative is minus it."""
    bits = x.view(WHOLE.get(x.dtype, torch.int64)).item()
    return bits if bits >= 0 else torch.iinfo(WHOLE.get(x.dtype, torch.int64)).min - bits


def _floats(keys: Tensor, dtype: torch.dtype) -> Tensor:
    whole = WHOLE.get(dtype, torch.int64)
    bits = torch.where(keys >= 0, keys, torch.iinfo(whole).min - keys)
    return bits.to(whole).view(dtype)
