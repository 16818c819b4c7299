"""Guards as objects: every protection point has a name, a mode and a threshold, and can be off."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from labkit.models.data import validate_counts

Function = Callable[[Tensor], Tensor]  # a plain function is accepted wherever a guard is


class _CapKeepingGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, low: float, high: float) -> Tensor:
        return value.clamp(low, high)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient, None, None


def _refuse(value: Tensor, low: float, high: float) -> Tensor:
    worst = value.detach().abs().max().item() if value.numel() else 0.0
    if not ((value.detach() >= low) & (value.detach() <= high)).all():
        raise FloatingPointError(f"expected values in [{low:g}, {high:g}]; largest size {worst:g}")
    return value


MODES: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "off": lambda value, low, high: value,
    "clamp": lambda value, low, high: value.clamp(low, high),
    "straight_through": _CapKeepingGradient.apply,
    "add": lambda value, low, high: value + low,
    "refuse": _refuse,
}


@dataclass(frozen=True)
class Guard:
    """A function of one tensor that protects the range [low, high].

    Modes: `off` edits nothing. `clamp` has gradient exactly 0 outside the range, so a value
    outside may never come back. `straight_through` clamps and lets the gradient through
    unchanged. `add` adds `low` everywhere. `refuse` edits nothing and raises outside the range,
    for NaN too.

    Breaks when: the value is NaN (all modes but `refuse` return NaN), or `low` rounds to 0 in the
    value's dtype (1e-8 in float16).
    """

    name: str
    mode: str = "off"
    low: float = -inf
    high: float = inf

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            known = ", ".join(MODES)
            raise ValueError(f"guard {self.name!r}: expected mode {known}; got {self.mode!r}")

    def __call__(self, value: Tensor) -> Tensor:
        return MODES[self.mode](value, self.low, self.high)


identity = Guard("identity")
hard_clamp = Guard("hard_clamp", "clamp", -10.0, 10.0)  # the guide's
straight_through = Guard("straight_through", "straight_through", -10.0, 10.0)


@dataclass(frozen=True)
class Guards:
    """Where the VAE can be protected; each field is a `Guard` or any function of one tensor.

    The guide's five points are `sample_logvar` (1), `kl_logvar` (2), `counts` and `r` (3),
    `decoder_r` (4) and `logs` (5). `logvar` is one cap in front of both uses of the log-variance.
    `log_r` is the cap that makes 3, 4 and 5 needless where r is decoded from its logarithm.
    `decoder_r`, `r` and `logs` act on the guide's form of the loss, `log_r` on the stable one.
    """

    logvar: Function = identity
    sample_logvar: Function = identity
    kl_logvar: Function = identity
    counts: Function = identity
    log_r: Function = identity
    decoder_r: Function = identity
    r: Function = identity
    logs: Function = identity  # on mu_x, where its logarithm is taken


EPS = 1e-8  # the guide's
OFF = Guards()
GUIDE = Guards(
    sample_logvar=hard_clamp,
    kl_logvar=hard_clamp,
    counts=Guard("counts", "clamp", low=0.0),
    decoder_r=Guard("decoder_r", "add", low=EPS),
    r=Guard("r", "clamp", low=EPS),
    logs=Guard("logs", "add", low=EPS),
)
REPAIRED = Guards(
    logvar=straight_through,
    counts=validate_counts,
    log_r=Guard("log_r", "straight_through", -8.0, 12.0),
)
