"""Guards as objects: every protection point has a name, a mode and a threshold, and can be off."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from torch import Tensor

from labkit.cells.data import validate_counts

Function = Callable[[Tensor], Tensor]  # a plain function is accepted wherever a guard is


def unguarded(value: Tensor, low: float = -inf, high: float = inf) -> Tensor:
    """Edit nothing."""
    return value


def hard_clamp(value: Tensor, low: float = -10.0, high: float = 10.0) -> Tensor:
    """Move values into [low, high]; outside it their gradient is exactly zero."""
    return value.clamp(low, high)


def straight_through(value: Tensor, low: float = -10.0, high: float = 10.0) -> Tensor:
    """Move values into [low, high]; the gradient passes as if nothing had been done."""
    return value.clamp(low, high).detach() + (value - value.detach())


def add(value: Tensor, low: float = 1e-8, high: float = inf) -> Tensor:
    """Add `low` everywhere; the gradient is one. Where `low` rounds to zero nothing happens."""
    return value + low


def refuse(value: Tensor, low: float = -inf, high: float = inf) -> Tensor:
    """Edit nothing; raise a FloatingPointError for NaN and for values outside [low, high]."""
    inside = (value.detach() >= low) & (value.detach() <= high) & value.detach().isfinite()
    if not inside.all():
        first = value.detach()[~inside][0].item()
        raise FloatingPointError(f"expected finite values in [{low:g}, {high:g}]; got {first:g}")
    return value


MODES: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "off": unguarded,
    "clamp": hard_clamp,
    "straight_through": straight_through,
    "add": add,
    "refuse": refuse,
}


@dataclass(frozen=True)
class Guard:
    """One protection point: a name, a mode (a key of `MODES`) and the range that it protects.

    Breaks when: the value is NaN (every mode but `refuse` hands it on), or infinite
    (`straight_through` makes it NaN).
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


@dataclass(frozen=True)
class Guards:
    """Where the VAE can be protected; each field is a `Guard` or any function of one tensor.

    The guide's five points are `sample_logvar` (1), `kl_logvar` (2), `counts` and `r` (3),
    `decoder_r` (4) and `logs` (5). `logvar` is one cap in front of both uses of the log-variance.
    `log_r` is the cap that makes 3, 4 and 5 needless where r is decoded from its logarithm.
    `decoder_r`, `r` and `logs` act on the guide's form of the loss, `log_r` on the stable one.
    The guide's likelihood scores negative counts as 0 by itself, even if `counts` is off.
    """

    logvar: Function = unguarded
    sample_logvar: Function = unguarded
    kl_logvar: Function = unguarded
    counts: Function = unguarded
    log_r: Function = unguarded
    decoder_r: Function = unguarded
    r: Function = unguarded
    logs: Function = unguarded  # on mu_x, where its logarithm is taken


EPS = 1e-8  # the guide's
OFF = Guards()
GUIDE = Guards(
    sample_logvar=Guard("sample_logvar", "clamp", -10.0, 10.0),
    kl_logvar=Guard("kl_logvar", "clamp", -10.0, 10.0),
    counts=Guard("counts", "clamp", low=0.0),
    decoder_r=Guard("decoder_r", "add", low=EPS),
    r=Guard("r", "clamp", low=EPS),
    logs=Guard("logs", "add", low=EPS),
)
REPAIRED = Guards(
    logvar=Guard("logvar", "straight_through", -10.0, 10.0),
    counts=validate_counts,
    log_r=Guard("log_r", "straight_through", -8.0, 12.0),
)
