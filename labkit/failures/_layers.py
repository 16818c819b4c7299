"""Which alarm rings at which fault, and what the guards cost a healthy run."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from labkit.cells.data import Cells, validate_counts
from labkit.failures.defence_in_depth import loss, prepared, spoilt
from labkit.models.guards import GUIDE, REPAIRED, Guard
from labkit.models.vae import NBVAE
from labkit.probes.guard_audit import GuardReport, audit_guards
from labkit.training.safe_step import safe_step

# name -> shift of the log-variance, spoilt entry, with a distance between cells in the loss?
FAULTS = {
    "none": (0.0, "none", False),
    "a count of NaN": (0.0, "NaN", False),
    "a count of -0.5": (0.0, "-0.5", False),
    "a count of 0.37": (0.0, "0.37", False),
    "log-variance - 15": (-15.0, "none", False),
    "a distance in the loss": (0.0, "none", True),
}


def alarms() -> str:
    """Every fault under the guide's guards, and which of four checks see it."""
    lines = [("", *CHECKS), *((name, *_rings(*fault)) for name, fault in FAULTS.items())]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _rings(shift: float, entry: str, distance: bool) -> list[str]:
    model, cells = prepared(shift), spoilt(entry)
    value = guarded_loss(model, cells, distance)
    value.backward()
    return ["rings" if check(value, model, cells) else "-" for check in CHECKS.values()]


def guarded_loss(model: NBVAE, cells: Cells, distance: bool = False) -> Tensor:
    """The guide's loss under the guide's guards; with its distance between cells, if asked."""
    value = loss(model, cells, GUIDE, "guide")
    return value + mean_distance(model, cells) if distance else value


def mean_distance(model: NBVAE, cells: Cells) -> Tensor:
    """Of the cells' latent means from each other, as the guide computes it: sqrt(clamp(d², 0))."""
    mu = model.encoder(cells.counts, cells.tissue)[0]
    squares = (mu.unsqueeze(0) - mu.unsqueeze(1)).square().sum(-1)
    return squares.clamp(min=0.0).sqrt().mean()


def _not_counts(value: Tensor, model: NBVAE, cells: Cells) -> bool:
    try:
        validate_counts(cells.counts)
    except ValueError:
        return True
    return False


Check = Callable[[Tensor, NBVAE, Cells], bool]
CHECKS: dict[str, Check] = {
    "data are counts": _not_counts,
    "loss (guide)": lambda value, model, cells: bool(value.isnan() | value.isinf()),
    "gradients finite": lambda value, model, cells: (
        not all(p.grad.isfinite().all() for p in model.parameters())
    ),
    "gradients alive": lambda value, model, cells: any(
        not p.grad.any() for p in model.parameters()
    ),
}


def one_step(distance: bool = True) -> dict[str, tuple[bool, int]]:
    """One step with a check of the loss, and one with a safe step: was it taken, finite weights."""
    found = {}
    for name in ("check of the loss", "safe_step"):
        model = prepared(0.0)
        optimizer, value = torch.optim.Adam(model.parameters()), None
        value = guarded_loss(model, spoilt("none"), distance)
        if name == "safe_step":
            taken = safe_step(value, optimizer, model.named_parameters()).accepted
        else:
            value.backward()
            taken = bool(value.isfinite())
            if taken:
                optimizer.step()
        finite = sum(bool(p.isfinite().all()) for p in model.parameters())
        found[name] = (taken, finite)
    return found


def range_audit(low: float, high: float) -> GuardReport:
    """What a clamp of log r to a range does to the healthy model."""
    guards = replace(REPAIRED, log_r=Guard("log_r", "clamp", low, high))
    model, cells = prepared(0.0), spoilt("none")
    reports = audit_guards(guards, lambda used: loss(model, cells, used))
    return next(report for report in reports if report.guard == "log_r")
