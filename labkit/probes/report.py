"""What a trace found: plain, frozen data that draws nothing and computes nothing."""

import math
from dataclasses import dataclass

from labkit.probes.stats import Histogram, Stats
from labkit.probes.verdict import Verdict

ALIVE = ("ok", "wrong", "vanishing", "exploding", "not updated")  # a gradient came: finite, not 0


@dataclass(frozen=True, slots=True)
class Op:
    """One recorded event: a source, a forward op, a backward op or an optimizer op.

    ``parents`` index into ``Report.ops``. A *source* (``phase == "source"``) is a tensor that no
    recorded op made; its ``kind`` says which: parameter, buffer, input or constant.
    """

    index: int
    step: int  # training step, counted from 0
    phase: str  # source, forward, backward, optimizer
    kind: str  # op, parameter, buffer, input, constant
    name: str  # "exp" for an op, "encoder.fc_mu.weight" for a source
    target: str  # "aten.exp.default", or "" for a source
    node: str  # autograd node: "ExpBackward0"; the one that runs, in backward
    module: str  # path of the module that runs, "" outside modules
    function: str  # the user's function that runs
    file: str  # base name of the user's file; the full path is in Report.files
    line: int
    source: str  # text of that line, stripped
    parents: tuple[int, ...]
    inputs: tuple[Stats, ...]
    outputs: tuple[Stats, ...]
    gradient: Stats | None = None  # of a forward op or a source: what arrives at its output
    forward: int | None = None  # of a backward op: the forward op that it differentiates
    cut: bool = False  # depends on a parameter, but no graph leaves it
    harmful: bool = False  # carries a bad value that reaches loss, gradient, parameter or state

    @property
    def group(self) -> str:
        """Where a picture puts it: its module, or outside modules its function."""
        return self.module or self.function

    @property
    def place(self) -> str:
        """``vae.py:57``, or "" where no user line is known."""
        return f"{self.file}:{self.line}" if self.file else ""


@dataclass(frozen=True, slots=True)
class Culprit:
    """Where the trouble was born: the one place to look at first."""

    phase: str  # forward, backward, optimizer, input, parameter
    op: str  # "exp", "SqrtBackward0", "detach"
    file: str
    line: int
    source: str
    module: str
    function: str
    step: int
    inputs: tuple[Stats, ...] = ()
    index: tuple[int, ...] | None = None  # first bad element: which cell, which gene
    name: str = ""  # of a parameter or input that was bad before any op
    position: int | None = None  # its index in Report.ops
    remark: str = ""  # one clause: "input up to 89.5", "6 of 64 entries were zero"

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.file else ""

    def __str__(self) -> str:
        where = self.module or self.function
        parts = [self.name or self.op, self.place, f"in {where}" if where else "", self.remark]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Link:
    """One step of the causal chain, in words."""

    event: str  # born, carried, masked, reborn, cut, died, harmed
    position: int | None  # index in Report.ops
    text: str


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one parameter in the traced steps."""

    name: str
    shape: tuple[int, ...]
    word: str  # ok, none, zero, vanishing, exploding, nan, inf, "not updated"
    gradient: Histogram | None  # None where .grad is None
    norm: float = math.nan  # of the gradient, in float64
    excused: str = ""  # why an odd word is no fault: "a bias before BatchNorm"


@dataclass(frozen=True, slots=True)
class Room:
    """Powers of two left before an op overflows or underflows."""

    position: int  # index in Report.ops
    above: float  # log2(largest finite value of the dtype / largest magnitude)
    below: float  # log2(smallest non-zero magnitude / smallest normal value of the dtype)


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """The whole story of some traced training steps."""

    verdict: Verdict
    culprit: Culprit | None
    chain: tuple[Link, ...]
    parameters: tuple[Fate, ...]
    ops: tuple[Op, ...]
    headroom: tuple[Room, ...]
    losses: tuple[float, ...]
    steps: int = 1
    files: tuple[tuple[str, str], ...] = ()  # base name -> full path
    error: str = ""  # what the traced code raised

    @property
    def harmed(self) -> tuple[Fate, ...]:
        """Parameters whose fate is a fault."""
        return tuple(fate for fate in self.parameters if fate.word != "ok" and not fate.excused)

    @property
    def alive(self) -> tuple[Fate, ...]:
        """Parameters with a gradient that is finite and not all zero, be it right or wrong."""
        return tuple(
            fate
            for fate in self.parameters
            if fate.word == "ok" or (fate.word in ALIVE and not fate.excused)
        )

    @property
    def tally(self) -> tuple[str, ...]:
        """How many gradients are alive, then who is excused and who is harmed, if anybody."""
        excused = sum(fate.word != "ok" and bool(fate.excused) for fate in self.parameters)
        parts = {"excused": excused, "harmed": len(self.harmed)}
        alive = f"{len(self.alive)} of {len(self.parameters)}"
        return (alive, *(f"{n} {word}" for word, n in parts.items() if n))

    @property
    def trained(self) -> str:
        """``3 of 4 gradients alive, 1 excused``, or that no backward asked for any."""
        alive, *aside = self.tally
        if self.ops and not self.alive and not any(op.phase == "backward" for op in self.ops):
            return f"nothing was trained, for no backward ran ({len(self.parameters)} parameters)"
        return ", ".join([f"{alive} gradients alive", *aside])

    @property
    def topology(self) -> int:
        """Equal for two traces with the same ops, groups and edges: one layout serves both."""
        return hash(tuple((op.phase, op.name, op.group, op.parents, op.cut) for op in self.ops))

    def explain(self):
        """A `Card` in plain words: symptom, cause, repair, proof, notebook."""
        from labkit.probes.explain import explain

        return explain(self)

    def breaks_first(self, below: bool = False) -> Op | None:
        """The forward op with the least room left to overflow, or to underflow if `below`.

        Constants (a mask of huge numbers) do not count: only what depends on a parameter or
        an input moves when a knob moves.
        """
        movable = _movable(self.ops)
        rooms = [room for room in self.headroom if room.position in movable]
        room = min(rooms, key=lambda r: r.below if below else r.above, default=None)
        return self.ops[room.position] if room is not None else None

    def __str__(self) -> str:
        total = len(self.parameters)
        if self.culprit is None:
            return f"{self.verdict}: {self.trained}"
        if self.verdict is Verdict.UNTRAINED:
            return f"{self.verdict}: {self.culprit}"
        harm = f"; harms {len(self.harmed)} of {total} parameters" if total else ""
        return f"{self.verdict}: {self.culprit}{harm}"

    __repr__ = __str__  # in a notebook: one line, not every op


def _movable(ops: tuple[Op, ...]) -> set[int]:
    """Ops that depend on a parameter or an input."""
    found: set[int] = set()
    for op in ops:
        source = op.phase == "source" and op.kind in ("parameter", "input")
        if source or any(parent in found for parent in op.parents):
            found.add(op.index)
    return found
