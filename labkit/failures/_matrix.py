"""The guide's risk matrix, row by row, and the rows that it lacks."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.failures._edges import Function

EPS = 1e-8  # the guide's


def same(x: Tensor) -> Tensor:
    """No guard."""
    return x


@dataclass(frozen=True)
class Row:
    """One operation; the guide's cells in English, "" where it has no row for it."""

    f: Function
    nan: str = ""
    inf: str = ""
    guard: str = ""
    guarded: Function = same  # what the guide does to the argument

    @property
    def told(self) -> str:
        """The guide's row in one line."""
        return f"NaN: {self.nan}; Inf: {self.inf}; guard: {self.guard}"


def product(x: Tensor) -> Tensor:
    """A row of 32 times a column of 32, all of them x."""
    return torch.bmm(x[:, None, None].expand(-1, 1, 32), x[:, None, None].expand(-1, 32, 1))[
        :, 0, 0
    ]


ROWS: dict[str, Row] = {
    "exp": Row(
        lambda x: x.exp(), "x is NaN", "x > 88", "clamp to [-10, 10]", lambda x: x.clamp(-10, 10)
    ),
    "log": Row(lambda x: x.log(), "x <= 0", "never", "x + eps", lambda x: x + EPS),
    "sqrt": Row(lambda x: x.sqrt(), "x < 0", "never", "clamp to >= 0", lambda x: x.clamp(min=0)),
    "division": Row(
        lambda x: 1 / x, "x = 0", "1 is large and x small", "x + eps", lambda x: x + EPS
    ),
    "lgamma": Row(
        lambda x: x.lgamma(), "x < 0", "x near 0", "clamp to > eps", lambda x: x.clamp(min=EPS)
    ),
    "pow": Row(
        lambda x: x**2.5, "x < 0, exponent no integer", "exponent large", "avoid, or clamp",
        lambda x: x.clamp(min=0),
    ),
    "bmm": Row(product, "an input is NaN", "entries too large", "validate the inputs"),
    "length": Row(same),  # a form of the bench decides how
    "square": Row(lambda x: x.square()),
    "cube root": Row(lambda x: x ** (1 / 3)),
    "expm1": Row(lambda x: x.expm1()),
    "log1p": Row(lambda x: x.log1p()),
    "x log x": Row(lambda x: torch.xlogy(x, x)),
    "acos": Row(lambda x: x.acos()),
    "atanh": Row(lambda x: x.atanh()),
    "tanh": Row(lambda x: x.tanh()),
    "sigmoid": Row(lambda x: x.sigmoid()),
    "log of sigmoid": Row(lambda x: x.sigmoid().log()),
    "softplus": Row(lambda x: F.softplus(x)),
}  # fmt: skip
