"""Negative binomial likelihood: how exact, how fast, how much memory, against the forms in use.

python benchmarks/likelihood.py [--rounds 40]

Truth is mpmath with 60 digits, at the inputs as float32 holds them. Times are ratios to
scvi-tools' formula: forward and backward, one thread, interleaved, medians of process time.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import cache

import mpmath
import torch
from torch import Tensor

from labkit.cells.data import load_pbmc
from labkit.models.likelihood import (
    nb_log_likelihood,
    nb_log_likelihood_from_logs,
    nb_log_likelihood_guide,
)

DIGITS = 60
COUNTS = (0, 1, 2, 3, 5, 20, 257, 1001, 10_000, 100_000)
FLOOR = 1e-5  # slopes below it count as this large: 1e-5 |g| + 1e-10 is an error of 1e-5
CELLS = 128  # a usual minibatch


def scvi_tools(x: Tensor, mu: Tensor, r: Tensor, eps: float = 1e-8) -> Tensor:
    """The formula of scvi-tools' log_nb_positive, from its published definition.

    Source: Lopez et al. 2018, Nature Methods 15, 1053; github.com/scverse/scvi-tools.
    """
    log_r_mu = torch.log(r + mu + eps)
    of_r = r * (torch.log(r + eps) - log_r_mu)
    of_mu = x * (torch.log(mu + eps) - log_r_mu)
    return of_r + of_mu + torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1)


def torch_distributions(x: Tensor, mu: Tensor, r: Tensor) -> Tensor:
    """torch.distributions.NegativeBinomial with logits log mu - log r."""
    logits = mu.log() - r.log()
    law = torch.distributions.NegativeBinomial(r, logits=logits, validate_args=False)
    return law.log_prob(x)


def from_logs(x: Tensor, mu: Tensor, r: Tensor) -> Tensor:
    """Ours from logarithms; its time holds the two logs."""
    return nb_log_likelihood_from_logs(x, mu.log(), r.log())


FORMS: dict[str, Callable] = {
    "scvi-tools' formula": scvi_tools,
    "torch.distributions": torch_distributions,
    "the guide's form": nb_log_likelihood_guide,
    "ours": nb_log_likelihood,
    "ours, from logs": from_logs,
}


@cache
def gammas(x: float, r: object) -> tuple:
    """log of gamma(x + r) / (gamma(r) gamma(x + 1)), and its slope in r."""
    x, r = mpmath.mpf(x), mpmath.mpf(r)
    value = mpmath.loggamma(x + r) - mpmath.loggamma(r) - mpmath.loggamma(x + 1)
    return value, mpmath.psi(0, x + r) - mpmath.psi(0, r)


def truth(x: float, mu: object, r: object) -> tuple[float, float, float]:
    """log P(x), and its slopes in log mu and in log r, from DIGITS digits; mu > 0."""
    with mpmath.workdps(DIGITS):
        value, slope = gammas(x, r)
        x, mu, r = mpmath.mpf(x), mpmath.mpf(mu), mpmath.mpf(r)
        log_q = mpmath.log(r / (r + mu))
        value += x * mpmath.log(mu / (r + mu)) + r * log_q
        d_log_r = r * (slope + log_q + (mu - x) / (r + mu))
        return float(value), float(r * (x - mu) / (r + mu)), float(d_log_r)


def grid(dtype: torch.dtype = torch.float32, steps: int = 15) -> tuple[Tensor, Tensor, Tensor]:
    """Counts to 1e5, mu from 1e-8 to 1e6 and at and near the count, r from 1e-4 to 1e10."""
    rs = torch.logspace(-4, 10, steps, dtype=torch.float64)
    wide = torch.logspace(-8, 6, steps, dtype=torch.float64)
    rows = []
    for count in COUNTS:
        close = count * torch.tensor([1 - 1e-2, 1.0, 1 + 1e-6, 1 + 1e-3], dtype=torch.float64)
        mus = torch.cat([wide, close[close > 0]])
        rows.append(torch.cartesian_prod(torch.tensor([float(count)]).double(), mus, rs))
    x, mu, r = torch.cat(rows).to(dtype).unbind(1)
    return x, mu, r


def truths(x: Tensor, mu: Tensor, r: Tensor, logs: bool = False) -> Tensor:
    """`truth` of every entry, shape (n, 3); with `logs` mu and r hold logarithms."""
    exact = cache(lambda number: mpmath.exp(number) if logs else number)
    with mpmath.workdps(DIGITS):
        rows = [truth(c, exact(m), exact(k)) for c, m, k in torch.stack((x, mu, r), 1).tolist()]
    return torch.tensor(rows, dtype=torch.float64)


def with_slopes(form: Callable, x: Tensor, mu: Tensor, r: Tensor, logs: bool = False) -> Tensor:
    """Value and slopes in log mu and log r as float64, shape (n, 3)."""
    mu, r = mu.detach().clone().requires_grad_(), r.detach().clone().requires_grad_()
    value = form(x, mu, r)
    d_mu, d_r = (slope.double() for slope in torch.autograd.grad(value.sum(), (mu, r)))
    if not logs:
        d_mu, d_r = d_mu * mu.double(), d_r * r.double()
    return torch.stack([c.detach().double() for c in (value, d_mu, d_r)], dim=1)


def errors(found: Tensor, right: Tensor) -> Tensor:
    """Errors of value and slopes, shape (n, 3), over max(size, floor); NaN counts as Inf."""
    size = right.abs().maximum(torch.tensor([1.0, FLOOR, FLOOR], dtype=torch.float64))
    return ((found - right).abs() / size).nan_to_num(nan=math.inf)


def worst(name: str, form: Callable) -> list[float]:
    """The largest errors over `grid`; logarithms are rounded to float32 before the truth."""
    logs = name == "ours, from logs"
    x, mu, r = grid()
    if logs:
        mu, r, form = mu.log(), r.log(), nb_log_likelihood_from_logs
    right = truths(x, mu, r, logs)
    return errors(with_slopes(form, x, mu, r, logs), right).amax(0).tolist()


def workloads() -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Real cells with r from 0.1 to 100 per gene and per entry, and the whole range mixed."""
    x = load_pbmc().counts[:CELLS].contiguous()
    dice = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.rand(*shape, generator=dice)  # noqa: E731
    mu = (x.mean(0) + 0.01) * torch.exp(draw(x.shape[0], 1) - 0.5)
    per_entry, per_gene = 10 ** (3 * draw(*x.shape) - 1), 10 ** (3 * draw(x.shape[1]) - 1)
    mixed = (10 ** (5 * draw(*x.shape))).floor(), 10 ** (14 * draw(*x.shape) - 8)
    return {
        "per gene": (x, mu, per_gene),
        "per entry": (x, mu, per_entry),
        "mixed": (*mixed, 10 ** (14 * draw(*x.shape) - 4)),
    }


def forward_backward(form: Callable, x: Tensor, mu: Tensor, r: Tensor) -> float:
    """Seconds of process time."""
    mu, r = mu.detach().requires_grad_(), r.detach().requires_grad_()
    start = time.process_time()
    form(x, mu, r).sum().backward()
    return time.process_time() - start


def ratios(inputs: tuple[Tensor, ...], rounds: int) -> dict[str, float]:
    """Median time of every form over that of scvi-tools' formula."""
    times: dict[str, list[float]] = {name: [] for name in FORMS}
    for _ in range(rounds):
        for name, form in FORMS.items():
            times[name].append(forward_backward(form, *inputs))
    middle = {name: statistics.median(seconds) for name, seconds in times.items()}
    return {name: middle[name] / middle["scvi-tools' formula"] for name in FORMS}


def kept(form: Callable, x: Tensor, mu: Tensor, r: Tensor) -> float:
    """Megabytes that forward keeps for backward, beside the inputs."""
    mu, r = mu.detach().requires_grad_(), r.detach().requires_grad_()
    storages = {}

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        value = form(x, mu, r)
    for tensor in (x, mu, r):
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    del value
    return sum(storages.values()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="interleaved repetitions")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    load = workloads()
    speed = {name: ratios(tensors, rounds) for name, tensors in load.items()}
    print(f"{len(grid()[0])} points: x 0 to 1e5, mu 1e-8 to 1e6, r 1e-4 to 1e10. float32.")
    print(f"time: over scvi-tools' formula, {CELLS} x 765, r per gene, per entry, whole range\n")
    head = ["", *(f"time, {name}" for name in load), "kept MB", "value", "d log mu", "d log r"]
    print("{:<20} {:>14} {:>15} {:>11} {:>8} {:>9} {:>9} {:>9}".format(*head))
    for name, form in FORMS.items():
        times = [speed[workload][name] for workload in load]
        numbers = [*times, kept(form, *load["per entry"]), *worst(name, form)]
        row = "{:<20} {:>14.2f} {:>15.2f} {:>11.2f} {:>8.1f} {:>9.1e} {:>9.1e} {:>9.1e}"
        print(row.format(name, *numbers))


if __name__ == "__main__":
    main()
