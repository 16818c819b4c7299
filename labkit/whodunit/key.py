"""The facilitator's key: what each seed stands for."""

from collections.abc import Iterable

from labkit.whodunit.running import healthy_text, number_of, swapped
from labkit.whodunit.seeds import fault_of


def key(seeds: int | Iterable[int]) -> str:
    """A line for each seed: line number, fault, culprit; then what it teaches and where.

    Args:
        seeds: one seed, or some.
    """
    chosen = [seeds] if isinstance(seeds, int) else list(seeds)
    return "\n".join(_entry(seed) for seed in chosen)


def _entry(seed: int) -> str:
    fault = fault_of(seed)
    number = number_of(swapped(healthy_text(), fault.line, fault.changed), fault.changed)
    return (
        f"case {seed}: line {number}, {fault.name} ({fault.culprits[0]})\n"
        f"    is:  {fault.changed}\n"
        f"    was: {fault.line}\n"
        f"    {fault.lesson} See {fault.notebook}."
    )
