"""The smallest failure there is: a distance whose square root meets a zero."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

from labkit.bench import Reading, choice, dial
from labkit.probes.trace import trace

SIZES = (0.5, 1.0, 2.0)


def bare(square: Tensor) -> Tensor:
    """Its slope at zero is infinite."""
    return square.sqrt()


def shifted(square: Tensor) -> Tensor:
    """Its slope at zero is large and finite."""
    return (square + 1e-12).sqrt()


@dataclass(frozen=True)
class Settings:
    """The knobs."""

    gap: float = dial(1.0, 0.0, 2.0, 0.5, "", "between the first point and its target")
    root: str = choice("bare", ("bare", "shifted"), "the square root")


FORMS = {"bare": bare, "shifted": shifted}


def total(weight: Tensor, gap: float, root: Callable) -> Tensor:
    """Sum of the distances of four points to their targets."""
    targets = weight.detach() - torch.tensor((gap, *SIZES), dtype=weight.dtype)
    return root((weight - targets).square()).sum()


def run(settings: Settings, repair: Callable | None = None) -> Reading:
    """One step."""
    root = repair or FORMS[settings.root]
    model = nn.ParameterDict({"weight": nn.Parameter(torch.ones(4))})
    report = trace(lambda: total(model["weight"], settings.gap, root), model=model)
    with torch.no_grad():
        reference = total(torch.ones(4, dtype=torch.float64), settings.gap, root)
    return Reading(settings, report.verdict, report, report.losses[0], float(reference))


def failure(**extra) -> ModuleType:
    """A fresh module of this failure; `extra` names are set on it."""
    made = ModuleType("toy")
    cases = {
        "healthy": Settings(),
        "broken": Settings(gap=0.0),
        "repaired": Settings(gap=0.0, root="shifted"),
    }
    names = {"Settings": Settings, "FORMS": FORMS, "FORM_KNOB": "root", "CASES": cases, "run": run}
    made.__dict__.update(names | extra)
    return made
