"""Energy distance: how fast, how much memory, how exact, against the forms in use.

python benchmarks/energy.py [--full] [--rounds 5]

Float32, 32 axes. Times are ratios: forward and backward, one thread, interleaved, medians of
process time. Memory is the growth of the process's peak, each form in a process of its own.
Errors are against subtraction in float64: of the value over the mean distance, of the gradient
over the gradient of the cross term. --full adds 10 000 rows (5 GB of memory, 15 minutes).
"""

import argparse
import importlib.util
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from labkit.models.energy import Reference, energy_distance, energy_distance_guide

AXES = 32
CHUNK = 1024
ROWS_OF_TRUTH = 2000
SHARE_ROUNDS = 9  # the share of sgemm's peak is quick to measure, and wanted to a hundredth
FLOPS = 6 * AXES + 8  # per pair, forward and backward: three products and the sums


def of_means(mean: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The V-statistic from a mean over all pairs."""
    return lambda x, y: 2 * mean(x, y) - mean(x, x) - mean(y, y)


def cdist_chunked(mode: str) -> Callable[[Tensor, Tensor], Tensor]:
    """A mean over all pairs by torch.cdist, CHUNK rows at a time, under plain autograd."""

    def mean(a: Tensor, b: Tensor) -> Tensor:
        parts = [torch.cdist(part, b, compute_mode=mode).sum() for part in a.split(CHUNK)]
        return torch.stack(parts).sum() / len(a) / len(b)

    return mean


class Twice(torch.autograd.Function):
    """The identity with twice the gradient: for a symmetric term with one side detached."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx, upstream: Tensor) -> Tensor:
        return 2 * upstream


def geomloss(x: Tensor, y: Tensor) -> Tensor:
    """The formula of geomloss's tensorized backend, times 2: whole matrices, squares >= 1e-8.

    Source: Feydy et al. 2019, AISTATS; geomloss 0.3, SamplesLoss("energy").
    """

    def mean(a: Tensor, b: Tensor) -> Tensor:
        squares = (a * a).sum(1)[:, None] - 2 * a @ b.t() + (b * b).sum(1)[None]
        return squares.clamp_min(1e-8).sqrt().mean()

    within = [mean(Twice.apply(s), s.detach()) for s in (x, y)]
    return 2 * mean(x, y) - within[0] - within[1]


def pot(x: Tensor, y: Tensor) -> Tensor:
    """Means of POT's ot.dist."""
    import ot

    return of_means(lambda a, b: ot.dist(a, b, metric="euclidean").mean())(x, y)


def scipy_forward(x: Tensor, y: Tensor) -> Tensor:
    """Means of scipy's distance matrices, as pertpy and scPerturb take them; no gradient."""
    from scipy.spatial.distance import cdist

    mean = of_means(lambda a, b: torch.tensor(cdist(a.detach(), b.detach()).mean()))
    return mean(x, y)


MM, DIRECT = "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist"
FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ours": lambda x, y: energy_distance(x, y, biased=True),
    "the guide's form": energy_distance_guide,
    "cdist": of_means(lambda a, b: torch.cdist(a, b, compute_mode=MM).mean()),
    "cdist, chunked": of_means(cdist_chunked(MM)),
    "cdist, subtracting, chunked": of_means(cdist_chunked(DIRECT)),
    "geomloss, tensorized": geomloss,
}
if importlib.util.find_spec("ot"):
    FORMS["POT"] = pot
if importlib.util.find_spec("scipy"):
    FORMS["scipy (no gradient)"] = scipy_forward


def samples(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two Gaussian samples, not far apart."""
    dice = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, rows, AXES, generator=dice)
    return x, 0.1 + 1.1 * y


def hard(rows: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Data that other forms get wrong, or that cost ours more than Gaussian data do."""
    dice = torch.Generator().manual_seed(1)
    x, y = samples(rows)
    noise = torch.randn(2, rows, AXES, generator=dice)
    far = torch.full((AXES,), 1e4 / math.sqrt(AXES)) * (torch.arange(rows) * 2 >= rows)[:, None]
    mix = torch.randperm(rows, generator=dice)
    centres = 1e3 * torch.randn(8, AXES, generator=dice)[torch.arange(rows) % 8]
    poisson = [torch.poisson(torch.full((rows, AXES), r), generator=dice) for r in (0.1, 0.12)]
    return {
        "Gaussian": (x, y),
        "offset 1e3": (x + 1e3, y + 1e3),
        "offset 1e5": (x + 1e5, y + 1e5),
        "1 + 1e-3 x": (1 + 1e-3 * x, 1 + 1e-3 * y),
        "near duplicates 1e-4": (x, x + 1e-4 * noise[0]),
        "near duplicates 1e-6": (x, x + 1e-6 * noise[0]),
        "a quarter shared": (x, torch.cat([x[: rows // 4], y[rows // 4 :]])),
        "two clusters, sorted": (x + far, y + far),
        "two clusters, shuffled": (x + far[mix], y + far[mix.flip(0)]),
        "eight clusters": (x + centres, y + centres[mix]),
        "one outlier at 1e6": (torch.cat([x[1:], x[:1] + 1e6]), y),
        "Cauchy": (x / noise[0], y / noise[1]),
        "log counts, duplicates": (poisson[0].log1p(), poisson[1].log1p()),
    }


def seconds(form: Callable, x: Tensor, y: Tensor, backward: bool = True) -> float:
    """Process time of one call, with its gradients in x and y."""
    x, y = (s.detach().clone().requires_grad_(backward) for s in (x, y))
    start = time.process_time()
    value = form(x, y)
    if value.requires_grad:
        value.backward()
    return time.process_time() - start


def medians(jobs: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median time of every job over that of the first, interleaved; each runs once before."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(rounds + 1):
        for name, job in jobs.items():
            taken = job()
            if turn:
                times[name].append(taken)
    first = times[next(iter(jobs))]
    return {
        n: statistics.median(t / f for t, f in zip(ts, first, strict=True))
        for n, ts in times.items()
    }


def speed(rows: int, rounds: int) -> dict[str, float]:
    """Ratios to ours of all forms, forward and backward, and of a product of two matrices."""
    x, y = samples(rows)
    matrix, out = torch.randn(2048, 2048), torch.empty(2048, 2048)
    reference = Reference.of(y)

    def product() -> float:
        torch.mm(matrix, matrix, out=out)  # once before: the other forms have emptied the caches
        start = time.process_time()
        torch.mm(matrix, matrix, out=out)
        return time.process_time() - start

    jobs = {name: lambda f=form: seconds(f, x, y) for name, form in FORMS.items()}
    jobs["ours, y a Reference"] = lambda: seconds(lambda a, _: energy_distance(a, reference), x, y)
    jobs["ours, value only"] = lambda: seconds(FORMS["ours"], x, y, backward=False)
    jobs["cdist, value only"] = lambda: seconds(FORMS["cdist"], x, y, backward=False)
    found = medians(jobs, rounds)
    share = medians({"ours": jobs["ours"], "sgemm": product}, SHARE_ROUNDS)["sgemm"]
    found["sgemm"] = share * FLOPS * 2 * rows**2 / (2 * 2048**3)  # our own products at its speed
    return found


def truth(x: Tensor, y: Tensor) -> tuple[float, Tensor, float, float]:
    """Value, gradient in x, mean distance, size of the cross term's gradient, in float64."""

    def mean(a: Tensor, b: Tensor) -> tuple[float, Tensor]:
        total, gradient = 0.0, torch.empty_like(a)
        for rows, part in zip(a.split(200), gradient.split(200), strict=True):
            difference = rows[:, None] - b
            length = difference.norm(dim=2)
            total += float(length.sum())
            part.copy_((difference / length.where(length > 0, 1.0)[..., None]).sum(1))
        return total / len(a) / len(b), gradient / len(a) / len(b)

    x, y = x.double(), y.double()
    (xy, across), (xx, own), (yy, _) = mean(x, y), mean(x, x), mean(y, y)
    return 2 * xy - xx - yy, 2 * (across - own), xy, float(2 * across.norm())


def errors(form: Callable, x: Tensor, y: Tensor, right: tuple) -> tuple[float, float]:
    """Of the value over the mean distance, and of the gradient over the cross term's."""
    value, gradient, mean, size = right
    leaf = x.clone().requires_grad_()
    found = form(leaf, y)
    if not found.requires_grad:
        return abs(float(found) - value) / mean, math.nan
    found.backward()
    return abs(float(found.detach()) - value) / mean, float((leaf.grad - gradient).norm()) / size


def peak(name: str, rows: int) -> None:
    """Prints the megabytes by which one call raises the peak of this process."""

    def status(key: str) -> int:
        return int(Path("/proc/self/status").read_text().split(f"{key}:")[1].split()[0])

    torch.set_num_threads(1)
    seconds(FORMS[name], *samples(600))  # loads what is loaded once
    x, y = samples(rows)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    seconds(FORMS[name], x, y)
    print((status("VmHWM") - before) / 1024)


def megabytes(name: str, rows: int) -> float:
    if not Path("/proc/self/clear_refs").exists():
        return math.nan
    command = [sys.executable, __file__, "--peak", name, "--rows", str(rows)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def table_of_forms(sizes: list[int], rounds: int) -> None:
    found = {rows: speed(rows, rounds if rows < 10_000 else 1) for rows in sizes}
    places = ("Gaussian", "offset 1e3", "near duplicates 1e-4")
    data = hard(ROWS_OF_TRUTH)
    right = {place: truth(*data[place]) for place in places}
    times = "".join(f"{f'time {rows}':>12}" for rows in sizes)
    peaks = "".join(f"{f'MB {rows}':>10}" for rows in sizes[1:])
    print(f"{'':28}{times}{peaks}" + "".join(f"{place:>22}" for place in places))
    for name in found[sizes[0]]:
        row = f"{name:28}" + "".join(f"{found[rows][name]:12.2f}" for rows in sizes)
        if name in FORMS:
            row += "".join(f"{megabytes(name, rows):10.0f}" for rows in sizes[1:])
            pairs = (errors(FORMS[name], *data[place], right[place]) for place in places)
            row += "".join(f"{value:13.0e} {gradient:8.0e}" for value, gradient in pairs)
        print(row if name != "sgemm" else row + "  <- ours as a share of its peak", flush=True)


def table_of_data(rows: int, rounds: int) -> None:
    print(f"\n{'':28}{'/ Gaussian':>12}{'/ chunked cdist':>17}", end="")
    print("".join(f"{name:>22}" for name in ("ours", "cdist", "cdist, subtracting")))
    gaussian = samples(rows)
    exact = hard(ROWS_OF_TRUTH)
    for name, (x, y) in hard(rows).items():
        jobs = {
            "ours": lambda x=x, y=y: seconds(FORMS["ours"], x, y),
            "Gaussian": lambda: seconds(FORMS["ours"], *gaussian),
            "chunked": lambda x=x, y=y: seconds(FORMS["cdist, chunked"], x, y),
        }
        times = medians(jobs, rounds)
        row = f"{name:28}{1 / times['Gaussian']:12.2f}{1 / times['chunked']:17.2f}"
        right = truth(*exact[name])
        for form in ("ours", "cdist", "cdist, subtracting, chunked"):
            row += "{:13.0e} {:8.0e}".format(*errors(FORMS[form], *exact[name], right))
        print(row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="also 10 000 rows")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved repetitions")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        peak(given.peak, given.rows)
        return
    torch.set_num_threads(1)
    sizes = [1000, 4000, *([10_000] if given.full else [])]
    print("time: over ours, forward and backward; then errors of value and of gradient\n")
    table_of_forms(sizes, given.rounds)
    table_of_data(sizes[-1], 1 if given.full else min(3, given.rounds))
    if given.full:
        print(f"\nours, 20000 rows: {megabytes('ours', 20_000):.0f} MB")


if __name__ == "__main__":
    main()
