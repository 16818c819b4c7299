"""One file that holds a step that went wrong: batch, state, random numbers, versions, report."""

import dataclasses
import io
import itertools
import os
import pickle
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from labkit.probes.report import Report
from labkit.watch.course import Course
from labkit.watch.entry import Entry
from labkit.watch.gate import Evidence
from labkit.watch.holdings import Snapshot
from labkit.watch.inquiry import Finding
from labkit.watch.plain import decode, encode, missing
from labkit.watch.randomness import Randomness
from labkit.watch.trigger import Trigger

FORMAT = 1
OWN = ("labkit.probes.", "labkit.watch.")  # rooms whose values a capsule is made of


def versions() -> dict[str, str]:
    """What the bits of a replay depend on."""
    numpy = sys.modules.get("numpy")
    return {
        "labkit": sys.modules["labkit"].__version__,
        "torch": str(torch.__version__),
        "numpy": numpy.__version__ if numpy else "",
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
    }


@dataclass(frozen=True, slots=True, repr=False)
class Capsule:
    """What a capsule file holds."""

    path: Path
    step: int
    reason: str
    remarks: tuple[str, ...]
    versions: dict[str, str]
    program: dict[str, Any]  # how the training was started
    report: Report
    evidence: Evidence
    state: Snapshot
    randomness: Randomness
    modes: dict[str, Any]  # names of the modules that train, of the parameters that are frozen
    times: int  # how often the tracer ran it
    batch: Any  # still encoded: its classes belong to the program

    def __str__(self) -> str:
        notes = "".join(f"\n  {remark}" for remark in self.remarks)
        return f"{self.path.name}: step {self.step}: {self.reason}\n  {self.report}{notes}"

    __repr__ = __str__

    def entry(self, generators: int) -> Entry:
        """The batch as an entry; the program's classes must be loaded.

        Args:
            generators: how many of its own the program has.

        Raises:
            ValueError: something of the batch was not kept, or its class is not known.
        """
        if notes := missing(self.batch):
            raise ValueError(
                f"{self.path.name}: the batch is not whole: {'; '.join(notes)}. A capsule keeps "
                "tensors, arrays, numbers, strings, sequences, dicts and dataclasses of these."
            )
        if generators != len(self.randomness.own):
            raise ValueError(
                f"{self.path.name}: expected {len(self.randomness.own)} generators in keep; "
                f"got {generators}"
            )
        args, kwargs = decode(self.batch)
        return Entry(self.step, args, kwargs, self.randomness, versions=None)


def save(
    folder: Path, trigger: Trigger, finding: Finding, course: Course, program: dict
) -> Trigger:
    """Write the capsule of a trigger: whole, or not at all.

    Returns:
        The trigger with the path of the file, or with a remark where it could not be written.
    """
    entry, models = finding.entry, course.holdings.models
    parameters = course.holdings.parameters.items()
    content = {
        "labkit capsule": FORMAT,
        "step": trigger.step,
        "reason": trigger.reason,
        "remarks": list(trigger.remarks),
        "versions": versions(),
        "program": program,
        "report": encode(finding.report),
        "evidence": encode(finding.evidence),
        "state": encode(finding.before),
        "randomness": encode(entry.randomness),
        "modes": {
            "training": [[n for n, m in model.named_modules() if m.training] for model in models],
            "frozen": [name for name, p in parameters if not p.requires_grad],
        },
        "times": finding.times,
        "batch": encode(entry.arguments()),
    }
    path = _free(folder / f"step{trigger.step:06d}.capsule")
    try:
        _write(path, content)
    except OSError as error:  # a full disk must not hide the alarm
        note = f"no capsule: {error}"
        return dataclasses.replace(trigger, remarks=(*trigger.remarks, note))
    return dataclasses.replace(trigger, capsule=path)


def _free(path: Path) -> Path:
    """This path, or the next that no earlier training has taken."""
    names = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    return path if not path.exists() else next(name for name in names if not name.exists())


def _write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    memory, aside = io.BytesIO(), Path(f"{path}.tmp")
    torch.save(content, memory)
    with open(aside, "wb") as file:
        file.write(memory.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def load(path: str | Path) -> Capsule:
    """Read a capsule. No code of the file is run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut, is something else, or has another format.
    """
    path = Path(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as wrong:
        raise ValueError(f"{path}: expected a whole capsule; {wrong}") from wrong
    format_ = content.pop("labkit capsule", None) if isinstance(content, dict) else None
    if format_ != FORMAT:
        raise ValueError(f"{path}: expected a capsule of format {FORMAT}; got {format_}")
    own = ("report", "evidence", "state", "randomness")
    content |= {name: decode(content[name], OWN) for name in own}
    return Capsule(path=path, **(content | {"remarks": tuple(content["remarks"])}))
