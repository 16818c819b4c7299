"""Accumulation: a running sum severs nothing; what is done to the sum beside it does.

The loss of a batch is the mean of many terms. ``total = total + term`` keeps the graph of every
term. ``total.data + term`` drops all but the last, ``torch.tensor([...])`` drops all. What a
running sum does lose is digits, in a dtype that has few.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Generator, Tensor

from labkit.bench import Claim, Reading, choice, dial
from labkit.cells.data import Cells, load_pbmc
from labkit.failures._held import Held
from labkit.failures._whole import Gradients, blamed, gradients, judged, share
from labkit.models.likelihood import kl_standard_normal, nb_log_likelihood_from_logs
from labkit.models.vae import NBVAE, embed, sample_z
from labkit.probes.report import Op, Report
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict
from labkit.training.train import trained_vae

Form = Callable[..., Tensor]
ROUNDINGS = 2.0  # of the dtype: a mean that is rounded once per term and once at its end keeps it
CLOSE = 1e-4  # of the mean, where the dtype has more digits than the model's own float32

TITLE = "Accumulation"
NICKNAME = "the innocent plus sign"
SYMPTOM = "Every parameter has a gradient, and it comes from the last term of the sum only."
CLAIM = Claim(
    quote="`result = result + ...` 创建新张量，旧的计算图被detach",
    translation="result = result + ... creates a new tensor, and the old graph is detached",
    verdict="false",
    truth="A new tensor is made, and its grad_fn holds the old one. Every term keeps its gradient. "
    "total.data + term keeps the last term only; torch.tensor([...]) keeps none.",
)
SOURCES = (
    "PyTorch documentation, Autograd mechanics: how autograd encodes the history",
    "Higham (1993), The accuracy of floating point summation, SIAM J. Sci. Comput. 14, 783",
    "IEEE 754-2019: binary16 has 11 significant bits, binary32 24; bfloat16 has 8",
)
CARD = {
    "cause": "The running total loses its graph (.data, .item(), torch.tensor) or its digits.",
    "repair": "Keep the terms as tensors and reduce them once: torch.stack(terms).mean().",
    "proof": "The gradient equals the sum of the terms' gradients, and the mean its float64 twin.",
}


def running(*terms: Tensor) -> Tensor:
    """The guide's wrong form: a running sum."""
    total = 0.0
    for term in terms:
        total = total + term
    return total / len(terms)


def stacked(*terms: Tensor) -> Tensor:
    """The guide's repair."""
    return torch.stack(terms).sum() / len(terms)


def mean(*terms: Tensor) -> Tensor:
    """One reduction: half precision is summed in float32 and rounded at the end."""
    return torch.stack(terms).mean()


def through_data(*terms: Tensor) -> Tensor:
    """The total is stripped of its graph in every round."""
    total = terms[0]
    for term in terms[1:]:
        total = total.data + term
    return total / len(terms)


def through_list(*terms: Tensor) -> Tensor:
    """Numbers in a list, made a tensor again; requires_grad=True silences the error."""
    numbers = [term.item() for term in terms]
    return torch.tensor(numbers, dtype=terms[0].dtype, requires_grad=True).mean()


FORMS: dict[str, Form] = {
    "running": running,
    "stacked": stacked,
    "mean": mean,
    "data": through_data,
    "list": through_list,
}
FORM_KNOB = "total"
DTYPES = ("float16", "bfloat16", "float32", "float64")
MAP = {"cells": (2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512), "dtype": DTYPES}


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    cells: float = dial(8, 2, 512, 2, "", "each is one term of the sum")
    dtype: str = choice("float32", DTYPES, "of the terms and their total")
    total: str = choice("mean", FORMS, "how the terms become one loss")


CASES = {
    "healthy": Settings(),
    "broken": Settings(total="data"),
    "guide": Settings(total="running"),
    "stalled": Settings(total="running", cells=512, dtype="bfloat16"),
    "repaired": Settings(total="mean"),
}
STALLED = (
    "the gradient is right and the value is not: a long running sum drops the digits of its terms"
)
CHECKS = (
    (Settings(cells=512, dtype="bfloat16"), Verdict.HEALTHY, STALLED),
    (Settings(cells=256, dtype="float16"), Verdict.HEALTHY, ""),
)
HINTS = {
    Verdict.WRONG: "every term must reach the total with its graph and its digits. .data and "
    "detach drop the graph of what came before; a long running sum drops the digits.",
    Verdict.INF: "the sum leaves the range of the dtype before the division brings it back. Let "
    "one reduction do both: torch.stack(terms).mean().",
}


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """One training step of the trained model: the mean negative ELBO of some real cells.

    Args:
        settings: the knobs.
        repair: a function of the terms, scalars, one for each cell, in place of the chosen total.
    """
    join, model, count = repair or FORMS[settings.total], trained_vae(), int(settings.cells)
    cells, (reference, truth) = _cells(count), _truth(count)
    report = trace(lambda: loss(model, cells, settings.dtype, join), model=model)
    if report.verdict == Verdict.HEALTHY:
        mine = gradients(loss(model, cells, settings.dtype, join), model)
        report = _digits_kept(judged(report, mine, truth), reference, settings.dtype)
    return Reading(settings, report.verdict, report, report.losses[0], reference)


def cell_losses(model: NBVAE, cells: Cells) -> Tensor:
    """Negative ELBO of each cell, in nats, shape (cell,); every cell draws its own noise."""
    noise = Generator().manual_seed(0)
    mu_z, logvar_z = model.encoder(cells.counts, cells.tissue)
    z = sample_z(mu_z, logvar_z, noise)
    log_mu, log_r = model.decoder(z, cells.tissue, cells.library, as_logs=True)
    log_p = nb_log_likelihood_from_logs(cells.counts, log_mu, log_r)
    return kl_standard_normal(mu_z, logvar_z) - log_p.sum(-1)


def loss(model: NBVAE, cells: Cells, dtype: str, join: Form) -> Tensor:
    """Mean of the cells' losses, each rounded to a dtype and joined by a form."""
    return join(*cell_losses(model, cells).to(getattr(torch, dtype)).unbind())


def history(form: str, count: int = 8) -> list[str]:
    """The autograd nodes from the loss back to the first term, along the first parent of each."""
    node = loss(trained_vae(), _cells(count), "float32", FORMS[form]).grad_fn
    names = []
    while node is not None and not node.name().startswith("Unbind"):
        names.append(node.name())
        node = node.next_functions[0][0] if node.next_functions else None
    return names


def running_sum(start: float, term: float, count: int) -> dict[str, float]:
    """What `start` becomes when `term` is added `count` times, by dtype; four decimals."""
    found = {}
    for dtype in ("bfloat16", "float16", "float32"):
        total = torch.full((), start, dtype=getattr(torch, dtype))
        for _ in range(count):
            total += term
        found[dtype] = round(float(total), 4)
    return found


def chunked_distance(form: str, chunk: int = 16) -> tuple[int, float]:
    """The guide's own case: a mean latent distance between two phases, in chunks of rows.

    Returns:
        How many of the 96 rows get a gradient, and the largest distance of an entry to the
        gradient of the same mean taken in one piece, relative to its largest entry.
    """
    cells = load_pbmc().train
    z = embed(trained_vae(), cells)
    x, y = (z[cells.tissue[:, phase] == 1][:96] for phase in (0, 2))
    x.requires_grad_()
    whole = torch.autograd.grad(torch.cdist(x, y).mean(), x)[0]
    terms = (torch.cdist(part, y).mean() for part in x.split(chunk))
    rows = torch.autograd.grad(FORMS[form](*terms), x)[0]
    return int(rows.any(-1).sum()), float((rows - whole).abs().max() / whole.abs().max())


def megabytes_held(chunks: int = 8, size: int = 64) -> dict[str, float]:
    """Saved tensors alive at the worst moment, in MB, for two ways to add up chunks of cells."""
    ways = {"one backward at the end": False, "one backward a chunk": True}
    return {
        way: round(Held(lambda each=each: _add_up(chunks, size, each)).peak / 1e6, 1)
        for way, each in ways.items()
    }


def _add_up(chunks: int, size: int, each: bool) -> None:
    model, cells, terms = trained_vae(), _cells(chunks * size), []
    for start in range(0, len(cells), size):
        term = cell_losses(model, cells[start : start + size]).sum() / len(cells)
        term.backward() if each else terms.append(term)
    if terms:
        sum(terms).backward()


def _digits_kept(report: Report, reference: float, dtype: str) -> Report:
    """The report, or one that says *wrong* where the mean has lost digits that the dtype has."""
    off = abs(report.losses[0] - reference) / abs(reference)
    if off <= max(CLOSE, ROUNDINGS * torch.finfo(getattr(torch, dtype)).eps):
        return report
    lost, op = max((_lost(op), op.index) for op in report.ops if op.phase == "forward")
    remark = f"the mean is {share(off)} off"
    if lost > 0:
        total, term = (stats.low for stats in report.ops[op].inputs)
        remark = f"{total:g} + {term:g} gave {report.ops[op].outputs[0].low:g}; {remark}"
    culprit = blamed(report.ops[op], remark)
    return replace(report, verdict=Verdict.WRONG, culprit=culprit)


def _lost(op: Op) -> float:
    """What an addition of two numbers rounds away."""
    if op.name != "add" or len(op.inputs) != 2 or op.outputs[0].size != 1:
        return 0.0
    return abs(sum(stats.low for stats in op.inputs) - op.outputs[0].low)


@lru_cache(maxsize=64)
def _truth(count: int) -> tuple[float, Gradients]:
    """The mean in float64, and its gradient."""
    model = trained_vae().double()
    value = cell_losses(model, _cells(count).to(torch.float64)).mean()
    return float(value.detach()), gradients(value, model)


@lru_cache(maxsize=64)
def _cells(count: int) -> Cells:
    return load_pbmc().train[:count]
