"""What the claims are run on: a small NB-VAE with real cells, clouds of points, single numbers."""

from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from labkit.cells.data import Cells, load_pbmc
from labkit.models.guards import OFF, Guards
from labkit.models.vae import NBVAE, DecoderNB, elbo_loss

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
Function = Callable[[Tensor], Tensor]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers, the same in every process."""
    return torch.randn(shape, generator=Generator().manual_seed(seed)).to(dtype)


def name(dtype: torch.dtype) -> str:
    """float32, and so on."""
    return str(dtype).removeprefix("torch.")


def slope(f: Function, x: float, dtype: torch.dtype = torch.float32) -> tuple[float, float]:
    """Value and gradient of a function at one number."""
    leaf = torch.tensor(x, dtype=dtype, requires_grad=True)
    value = f(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return float(value.detach()), float(gradient)


CLAMP_EDGE = slope(lambda x: x.clamp(min=0), 0.0)[1]
"""What clamp hands back exactly at its edge: 1 in torch 2.13, 0 in 2.14; asked here."""


def edge(bad: Callable[[Tensor], bool], good: float, broken: float,
         dtype: torch.dtype = torch.float32) -> tuple[float, float]:  # fmt: skip
    """Two neighbours of a dtype between which `bad` changes from False to True."""
    low, high = torch.tensor(good, dtype=dtype), torch.tensor(broken, dtype=dtype)
    if bad(low) or not bad(high):
        raise ValueError(f"expected {good} to be good and {broken} to be bad; got the contrary")
    while True:
        middle = low / 2 + high / 2
        if middle in (low, high):
            return float(low), float(high)
        low, high = (low, middle) if bad(middle) else (middle, high)


def non_finite(f: Function) -> Callable[[Tensor], bool]:
    """Whether a function of a tensor has NaN or Inf in its value."""
    return lambda x: not bool(f(x).isfinite().all())


def linear(rows: int, columns: int, seed: int = 0) -> nn.Linear:
    """A layer with weights that are the same in every process."""
    layer = nn.utils.skip_init(nn.Linear, rows, columns)  # draws no random numbers
    with torch.no_grad():
        layer.weight.copy_(normal(columns, rows, seed=seed) / rows**0.5)
        layer.bias.zero_()
    return layer


def error_of(f: Callable[[], object]) -> str:
    """The name of the error that a call raises; empty if it raises none."""
    try:
        f()
    except Exception as error:
        return type(error).__name__
    return ""


@cache
def cells(count: int = 32, genes: int = 64) -> Cells:
    """The first training cells of the packaged blood cells, and their most counted genes."""
    batch = load_pbmc().train[:count]
    most = batch.counts.sum(0).sort(descending=True, stable=True).indices[:genes]
    kept = tuple(batch.genes[i] for i in most.tolist())
    return replace(batch, counts=batch.counts[:, most], genes=kept)


class SoftplusDecoder(DecoderNB):
    """The guide's decoder: mu and r are softplus plus eps, not exponentials."""

    eps = 1e-8  # the guide's; keeps mu and r above 0 in every dtype but float16

    def forward(self, z, tissue, library=None, as_logs=False):
        """Return (mu_x, r_x), or their logarithms."""
        logs = super().forward(z, tissue, library, as_logs=True)
        mu_x, r_x = (F.softplus(a) + self.eps for a in logs)
        return (mu_x.log(), r_x.log()) if as_logs else (mu_x, r_x)


def vae(decoder: type[DecoderNB] = DecoderNB, seed: int = 0) -> NBVAE:
    """A fresh, untrained NB-VAE for those genes: 8 latents, 32 hidden units."""
    model = NBVAE.for_cells(cells(), latent_dim=8, hidden=32, seed=seed)
    model.decoder.__class__ = decoder
    return model


def loss_of(model: NBVAE, batch: Cells | None = None, guards: Guards = OFF,
            form: str = "stable") -> Tensor:  # fmt: skip
    """The negative ELBO in nats per cell; the same noise in every call."""
    batch = cells() if batch is None else batch
    draw = Generator().manual_seed(0)
    x, tissue, library = batch.counts, batch.tissue, batch.library
    return elbo_loss(x, tissue, model, library, guards, form, generator=draw)[0]


def force(layer: nn.Linear, value: float) -> None:
    """Make a layer answer `value`, whatever goes in; it still learns."""
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(value)


def spoilt(tensors: Iterable[tuple[str, Tensor | None]]) -> list[str]:
    """The names of those that hold NaN or Inf."""
    return [n for n, t in tensors if t is not None and not bool(t.isfinite().all())]


def spoilt_gradients(model: nn.Module) -> list[str]:
    """The names of the parameters whose gradient holds NaN or Inf."""
    return spoilt((n, p.grad) for n, p in model.named_parameters())


@contextmanager
def flushed():
    """Subnormal numbers become 0, as on many accelerators; put back afterwards."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def rooted(x: Tensor, y: Tensor) -> Tensor:
    """A loss that is finite while its gradient is NaN: roots at 0, in every version of torch."""
    return (x[:, None] - y).square().sum(-1).sqrt().mean() + (x - x).square().sum(-1).sqrt().mean()
