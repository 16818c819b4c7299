"""The guide's two diagrams of how NaN spreads, arrow by arrow, and the arrows that they miss.

    from labkit.claims import paths
    paths.arrows("vae")          # plain data: what each arrow says, and where it stands
    paths.measured("vae")        # runs each of them on a real model with one fault: one row each

An arrow says that what stands at its start causes what stands at its end. Each is run with one
fault put in at the start; its verdict is a word of `VERDICTS`. An arrow without the guide's words
is one that the guide misses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

from labkit.claims.entry import VERDICTS, Ruling, readable
from labkit.claims.table import Table

DIAGRAMS = ("vae", "operator")


@dataclass(frozen=True)
class Node:
    """One box of a diagram: the guide's words, empty if it is ours, and our translation."""

    chinese: str
    english: str


NODES: dict[str, dict[str, Node]] = {
    "vae": {
        "A": Node("logvar过大 >20", "logvar too large, > 20"),
        "B": Node("exp溢出 → std=Inf", "exp overflows: std = Inf"),
        "C": Node("z采样 = mu + std*eps → z=Inf", "sampling: z = Inf"),
        "D": Node("Decoder输出 → mu_x=Inf", "decoder: mu_x = Inf"),
        "E": Node("log(mu_x) → log(Inf) = Inf", "log(mu_x) = Inf"),
        "F": Node("loss=Inf → backward → 所有参数=NaN", "loss = Inf; backward: all parameters NaN"),
        "G": Node("r过小 <1e-8", "r too small, < 1e-8"),
        "H": Node("lgamma(r) → 极大负值", "lgamma(r) hugely negative"),
        "I": Node("log_p异常 → loss异常", "log_p abnormal, loss abnormal"),
        "J": Node("mu=0", "mu = 0"),
        "K": Node("log(mu+eps) → log(eps) = -18", "log(mu + eps) = -18"),
        "L": Node("如果eps过小 → 数值下溢", "if eps is too small: underflow"),
        "A far": Node("", "logvar > 88.7"),
        "KL": Node("", "KL = Inf, by exp(logvar)"),
        "trunk": Node("", "NaN gradients of the layers before logvar alone"),
        "mu NaN": Node("", "mu_x = NaN, as +Inf and -Inf add up"),
        "loss NaN": Node("", "loss = NaN, as Inf - Inf"),
        "clamped": Node("", "logvar behind both clamps"),
        "dead": Node("", "a gradient of exactly 0"),
        "faint": Node("", "a gradient that has faded"),
        "r large": Node("", "r large"),
        "wrong": Node("", "log_p finite and wrong"),
    },
    "operator": {
        "unstable": Node("如果算子不稳定", "the operator is unstable"),
        "error": Node("矩阵乘法累积误差", "rounding errors of matrix products add up"),
        "explodes": Node("z1_pred爆炸 → Inf", "z1_pred explodes: Inf"),
        "distance": Node("energy_distance计算 → dist过大 → overflow", "distances overflow"),
        "loss": Node("loss=NaN", "loss = NaN"),
        "parameters": Node("backward → 参数=NaN", "backward: parameters NaN"),
        "growth": Node("", "each step stretches by the operator's own norm"),
        "self": Node("", "every cell's distance to itself is 0"),
        "NaN gradients": Node("", "NaN gradients, loss finite"),
        "contraction": Node("", "an operator of norm below 1"),
        "vanishing": Node("", "a gradient that has vanished"),
        "far": Node("", "clouds far from the origin"),
        "cancelled": Node("", "distances wrong: their digits cancel"),
    },
}


@dataclass(frozen=True)
class Arrow:
    """One arrow of a diagram.

    Args:
        diagram: vae or operator.
        start, end: keys of `NODES[diagram]`.
        by_guide: whether the guide draws it; else it is one that the guide misses.
        expected: the verdict that was measured; a test compares.
        claims: the ids of the claims that say more.
        run: puts the fault in at the start, and looks at the end.
    """

    diagram: str
    start: str
    end: str
    by_guide: bool
    expected: str
    claims: tuple[str, ...]
    run: Callable[..., "Step"]

    def __str__(self) -> str:
        start, end = (NODES[self.diagram][key].english for key in (self.start, self.end))
        return f"{start} -> {end}"


@dataclass(frozen=True)
class Step:
    """What one run of an arrow found: a word of `VERDICTS` and one sentence."""

    verdict: str
    evidence: str


@dataclass(frozen=True)
class Row:
    """One line of a diagram's table."""

    arrow: str
    by_guide: bool
    verdict: str
    evidence: str


MAP: list[Arrow] = []  # every arrow; `arrow` writes into it


def arrow(
    diagram: str,
    start: str,
    end: str,
    *,
    verdict: str,
    claims: tuple[str, ...],
    by_guide: bool = True,
) -> Callable[[Callable[..., Ruling]], Callable[..., Step]]:
    """Enter a function that runs an arrow and returns (verdict, evidence) into the map."""
    for key in (start, end):
        if key not in NODES[diagram]:
            raise ValueError(f"{diagram}: expected a node of {sorted(NODES[diagram])}; got {key!r}")

    def enter(function: Callable[..., Ruling]) -> Callable[..., Step]:
        @wraps(function)
        def run(*args, **changed) -> Step:
            word, evidence = function(*args, **changed)
            if word not in VERDICTS:
                raise ValueError(f"expected a verdict of {VERDICTS}; got {word!r}")
            return Step(word, readable(evidence))

        MAP.append(Arrow(diagram, start, end, by_guide, verdict, claims, run))
        return run

    return enter


def arrows(diagram: str | None = None) -> tuple[Arrow, ...]:
    """The arrows of one diagram, or of both: the guide's first, then those that it misses.

    Raises:
        ValueError: there is no such diagram.
    """
    if diagram not in (None, *DIAGRAMS):
        raise ValueError(f"diagram: expected one of {', '.join(DIAGRAMS)}; got {diagram!r}")
    chosen = [entry for entry in MAP if diagram in (None, entry.diagram)]
    return tuple(sorted(chosen, key=lambda a: (DIAGRAMS.index(a.diagram), not a.by_guide)))


def measured(diagram: str | None = None) -> Table:
    """Run the arrows; one `Row` each, in the order of `arrows`."""
    return Table(
        Row(str(entry), entry.by_guide, step.verdict, step.evidence)
        for entry in arrows(diagram)
        for step in (entry.run(),)
    )
