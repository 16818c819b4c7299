"""What is known about one blow-up, and the exception that carries it."""

from dataclasses import dataclass
from pathlib import Path

from labkit.probes.report import Report


@dataclass(frozen=True, slots=True, repr=False)
class Trigger:
    """One alarm of the watch.

    ``step`` counts the batches from 0: the one in which the fault was born; ``seen`` is the
    batch in which the check found it, later where an optimizer was at fault.
    """

    step: int
    seen: int
    reason: str  # "not finite: gradient of fc.weight (nan)"
    report: Report | None  # None where the step could not be run again
    reproduced: bool  # the replay had the same bits
    action: str  # raise, skip or rollback
    remarks: tuple[str, ...] = ()
    capsule: Path | None = None

    def __str__(self) -> str:
        later = f" (seen at step {self.seen})" if self.seen != self.step else ""
        told = f"\n  {self.report}" if self.report is not None else ""
        notes = "".join(f"\n  {remark}" for remark in self.remarks)
        kept = f"\n  kept in {self.capsule}" if self.capsule else ""
        return f"step {self.step}{later}: {self.reason}{told}{notes}{kept}"

    __repr__ = __str__


class Blowup(RuntimeError):
    """A watched step is not finite; ``error.trigger`` tells where that began.

    Parameters, buffers and optimizer state are as they were before the guilty step.
    """

    def __init__(self, trigger: Trigger, why: str = ""):
        super().__init__(f"{why}{trigger}")
        self.trigger = trigger
