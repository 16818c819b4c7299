"""What the number formats can hold, asked of the formats themselves."""

import torch
from torch import Tensor

from labkit.models.likelihood import nb_log_likelihood, nb_log_likelihood_guide

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
EPS = 1e-8  # the guide's, and Adam's


def table() -> str:
    """One line for each question, one column for each format."""
    names = [str(dtype).removeprefix("torch.") for dtype in DTYPES]
    lines = [("", *names), *((what, *map(ask, DTYPES)) for what, ask in QUESTIONS.items())]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _eps(dtype: torch.dtype) -> str:
    return f"{torch.tensor(EPS, dtype=dtype).item():.3g}"


def _largest(dtype: torch.dtype) -> str:
    return f"{torch.finfo(dtype).max:.3g}"


def _smallest(dtype: torch.dtype) -> str:
    """With subnormal numbers."""
    return f"{torch.finfo(dtype).tiny * torch.finfo(dtype).eps:.1g}"


def _above_one(dtype: torch.dtype) -> str:
    return f"{torch.finfo(dtype).eps:.1g}"


def whole_numbers(dtype: torch.dtype) -> int:
    """The first count that has no successor."""
    count = torch.ones((), dtype=dtype)
    while count + 1 != count:
        count = count * 2
    return int(count)


def running_sum(dtype: torch.dtype, terms: int = 5000) -> float:
    """Of ones, one after the other."""
    total = torch.zeros((), dtype=dtype)
    for one in torch.ones(terms, dtype=dtype):
        total += one
    return total.item()


def at_once(dtype: torch.dtype, terms: int = 5000) -> float:
    """The same by one call of sum, which adds in float32."""
    return torch.ones(terms, dtype=dtype).sum().item()


def likelihood_error(dtype: torch.dtype, count: float = 1001.0) -> float:
    """Of log p of one count, in nats: by the guide's formula in that dtype."""
    numbers: list[Tensor] = [torch.tensor(x, dtype=dtype) for x in (count, 900.0, 2.0)]
    truth = nb_log_likelihood(*(torch.tensor(x, dtype=torch.float64) for x in (count, 900.0, 2.0)))
    return abs(nb_log_likelihood_guide(*numbers).double() - truth).item()


QUESTIONS = {
    "1e-8 becomes": _eps,
    "largest number": _largest,
    "smallest number": _smallest,
    "first step above 1": _above_one,
    "counts are exact up to": lambda dtype: str(whole_numbers(dtype)),
    "5000 ones, in a loop": lambda dtype: f"{running_sum(dtype):g}",
    "5000 ones, by sum()": lambda dtype: f"{at_once(dtype):g}",
    "log p(1001) is off by": lambda dtype: f"{likelihood_error(dtype):.1g} nats",
}
