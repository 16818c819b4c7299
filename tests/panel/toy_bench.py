"""The smallest failure mode: exp of a shifted weight, in a step that is traced for real."""

from dataclasses import dataclass

import torch

from labkit.bench import Claim, Reading, choice, dial
from labkit.probes.trace import trace

TITLE = "A toy"
SYMPTOM = "The loss is Inf."
CLAIM = Claim("guide", "exp overflows at 20", "false", "It overflows at 88.72.")
SOURCES = ("IEEE 754-2019",)


@dataclass(frozen=True)
class Settings:
    shift: float = dial(0.0, -10, 100, 0.5, "nats", "added to the weight")
    scale: float = dial(1.0, 1, 3, 0.1, "", "of the loss")
    guard: str = choice("none", ("none", "clamp", "raise"), "before exp")


CASES = {
    "healthy": Settings(),
    "broken": Settings(shift=90.0),
    "repaired": Settings(shift=90.0, guard="clamp"),
}


class Toy(torch.nn.Module):
    """One weight for each of three inputs."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.1, 0.2, 0.3]))

    def forward(self, settings: Settings) -> torch.Tensor:
        """The loss: a mean of exponents."""
        x = self.weight + settings.shift
        return (x.clamp(max=10.0) if settings.guard == "clamp" else x).exp().mean() * settings.scale


def run(settings: Settings, repair=None) -> Reading:
    """One traced step."""
    if settings.guard == "raise":
        raise RuntimeError("this guard always fails: choose another")
    model = Toy()
    report = trace(lambda: model(settings), model)
    return Reading(settings, report.verdict, report, report.losses[0], 1.0)
