"""Everyday transforms in three forms: as written, as the guide writes it, and stable."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from labkit.failures._batch import batch
from labkit.models.likelihood import nb_log_likelihood_from_logs
from labkit.models.vae import sample_z
from labkit.training.train import trained_vae

EPS = 1e-8  # the guide's


@dataclass(frozen=True)
class Transform:
    """One expression of some numbers; `stable` in float64 is the truth."""

    name: str
    at: tuple[float, ...]
    plain: Callable[..., Tensor]
    stable: Callable[..., Tensor]
    guide: Callable[..., Tensor] | None = None  # where the guide has a form of its own


def _max_out(a: Tensor, b: Tensor) -> Tensor:
    top = torch.max(a, b)
    return torch.exp(a - top) - torch.exp(b - top)


def _ratio(at: tuple[float, float]) -> Transform:
    return Transform(
        "log(a / b)",
        at,
        lambda a, b: (a / b).log(),
        lambda a, b: a.log() - b.log(),
        lambda a, b: (a + EPS).log() - (b + EPS).log(),
    )


def _difference(at: tuple[float, float]) -> Transform:
    stable = lambda a, b: b.exp() * (a - b).expm1()  # noqa: E731
    return Transform("exp(a) - exp(b)", at, lambda a, b: a.exp() - b.exp(), stable, _max_out)


def _sigmoid(at: tuple[float]) -> Transform:
    guide = lambda x: (x.sigmoid() + EPS).log()  # noqa: E731
    return Transform("log(sigmoid(x))", at, lambda x: x.sigmoid().log(), F.logsigmoid, guide)


def _sum(at: tuple[float, float]) -> Transform:
    plain = lambda a, b: (a.exp() + b.exp()).log()  # noqa: E731
    guide = lambda a, b: (a.exp() + b.exp() + EPS).log()  # noqa: E731
    return Transform("log(exp(a) + exp(b))", at, plain, torch.logaddexp, guide)


TRANSFORMS = (
    _ratio((2.0, 3.0)),
    _ratio((1e-30, 3e-30)),
    _ratio((1e-30, 1e20)),
    _difference((3.0, 1.0)),
    _difference((0.0001, 0.0)),
    _difference((90.0, 89.0)),
    _sum((-1.0, -2.0)),
    _sum((-600.0, -601.0)),
    Transform("log(1 + x)", (1e-6,), lambda x: (1 + x).log(), torch.log1p),
    Transform("exp(x) - 1", (1e-6,), lambda x: x.exp() - 1, torch.expm1),
    Transform("log(1 + exp(x))", (90.0,), lambda x: (1 + x.exp()).log(), F.softplus),
    _sigmoid((-5.0,)),
    _sigmoid((-110.0,)),
)
FORMS = ("plain", "guide", "stable")


def digits(transform: Transform, form: str) -> str:
    """Right digits of the value and of the slope in the first number, float32: "7/7"."""
    function = getattr(transform, form)
    if function is None:
        return "-"
    mine, truth = _both(function, transform.at, torch.float32), _truth(transform)
    return "/".join(_digits(a, b) for a, b in zip(mine, truth, strict=True))


def table() -> str:
    """Every transform in its forms."""
    lines = [("", "at", *FORMS)]
    for transform in TRANSFORMS:
        at = ", ".join(f"{x:g}" for x in transform.at)
        lines.append((transform.name, at, *(digits(transform, form) for form in FORMS)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _both(function: Callable[..., Tensor], at, dtype: torch.dtype) -> tuple[float, float]:
    numbers = [torch.tensor(x, dtype=dtype, requires_grad=True) for x in at]
    value = function(*numbers)
    (slope,) = torch.autograd.grad(value, numbers[:1])
    return value.item(), slope.item()


def _truth(transform: Transform) -> tuple[float, float]:
    """In float64, of the numbers as float32 holds them."""
    at = [float(torch.tensor(x)) for x in transform.at]
    return _both(transform.stable, at, torch.float64)


def _digits(value: float, truth: float) -> str:
    """How many decimal digits are right; or that it is not finite."""
    fits = abs(truth) <= torch.finfo(torch.float32).max
    if not math.isfinite(value):
        return str(value).replace("-", "") if fits else "inf"
    off = abs(value - truth) / abs(truth)
    return str(max(0, math.floor(-math.log10(off)))) if off > 1e-7 else "7"


def marginals(draws: int = 16) -> dict[str, int]:
    """log p(x) of 64 cells as a log of a mean over draws of z: how many come out finite."""
    weights = _weights(draws)
    estimates = {
        "log(mean(exp(w)))": weights.exp().mean(0).log(),
        "logsumexp(w) - log(n)": weights.logsumexp(0) - math.log(draws),
    }
    return {name: int(values.isfinite().sum()) for name, values in estimates.items()}


def _weights(draws: int) -> Tensor:
    """log p(x, z) - log q(z | x), up to a constant, shape (draw, cell)."""
    model, cells, noise = trained_vae(), batch(), Generator().manual_seed(0)
    with torch.no_grad():
        mu, logvar = model.encoder(cells.counts, cells.tissue)
        found = []
        for _ in range(draws):
            z = sample_z(mu, logvar, noise)
            logs = model.decoder(z, cells.tissue, cells.library, as_logs=True)
            log_p = nb_log_likelihood_from_logs(cells.counts, *logs).sum(-1)
            log_q = -0.5 * (logvar + (z - mu).square() / logvar.exp()).sum(-1)
            found.append(log_p - 0.5 * z.square().sum(-1) - log_q)
    return torch.stack(found)
