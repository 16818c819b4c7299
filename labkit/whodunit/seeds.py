"""Which fault a seed stands for."""

from random import Random

from labkit.whodunit.faults import FAULTS, Fault


def fault_of(seed: int) -> Fault:
    """The fault of a seed. As many seeds in a row as there are faults give each of them once.

    Raises:
        ValueError: not a whole number of at least 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed: expected a whole number of at least 0; got {seed!r}")
    round_, place = divmod(seed, len(FAULTS))
    order = list(range(len(FAULTS)))
    Random(f"whodunit {round_}").shuffle(order)
    return FAULTS[order[place]]


def seed_of(name: str) -> int:
    """The first seed of a fault."""
    return next(seed for seed in range(len(FAULTS)) if fault_of(seed).name == name)
