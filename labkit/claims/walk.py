"""One training step of the guide's VAE on real cells, with a fault put in at one place."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from labkit.claims.subjects import SoftplusDecoder, cells, normal, vae
from labkit.models.guards import OFF, Guards
from labkit.models.likelihood import kl_standard_normal_guide

INF = float("inf")
EPS = 1e-8  # the guide's
Fault = Callable[[Tensor], Tensor]


def put(value: float, entries: int | None = None) -> Fault:
    """A fault: a tensor, or its first entries of each row, gets a value; gradients pass."""

    def fault(t: Tensor) -> Tensor:
        wanted = t.detach().clone()
        wanted[..., :entries] = value
        return wanted + (t - t.detach())  # the difference is 0, and hands the gradient on

    return fault


@dataclass(frozen=True)
class Walk:
    """One training step without its update: the tensor at each place, and the gradients."""

    at: dict[str, Tensor]
    gradients: dict[str, Tensor]

    @property
    def bad(self) -> list[str]:
        """The parameters whose gradient holds NaN or Inf."""
        return [n for n, g in self.gradients.items() if not bool(g.isfinite().all())]

    def __getitem__(self, place: str) -> float:
        return float(self.at[place])


def walk(eps: float = EPS, guards: Guards = OFF, dtype=torch.float32, **faults: Fault) -> Walk:
    """The guide's model on real cells; a fault at a place changes what leaves it."""
    model, batch, at = vae(SoftplusDecoder).to(dtype), cells().to(dtype), {}

    def passing(place: str, value: Tensor) -> Tensor:
        at[place] = faults.get(place, lambda t: t)(value)
        return at[place]

    mu_z, logvar = model.encoder(batch.counts, batch.tissue)
    logvar = passing("logvar", logvar)
    std = passing("std", (0.5 * guards.sample_logvar(logvar)).exp())
    z = passing("z", mu_z + std * normal(*mu_z.shape, dtype=dtype))
    mu_x, r = model.decoder(z, batch.tissue)
    mu_x, r, x = passing("mu_x", mu_x), passing("r", r), batch.counts
    gammas = (x + r).lgamma() - passing("lgamma", r.lgamma()) - (x + 1).lgamma()
    log_mu, log_sum = passing("log_mu", (mu_x + eps).log()), (r + mu_x + eps).log()
    log_p = passing("log_p", gammas + r * ((r + eps).log() - log_sum) + x * (log_mu - log_sum))
    kl = passing("kl", kl_standard_normal_guide(mu_z, guards.kl_logvar(logvar)).mean())
    loss = passing("loss", kl - log_p.sum(-1).mean())
    loss.backward()
    return Walk(
        {place: t.detach() for place, t in at.items()},
        {n: p.grad for n, p in model.named_parameters() if p.grad is not None},
    )


def share(hit: Tensor) -> float:
    """Of the entries."""
    return float(hit.float().mean())
