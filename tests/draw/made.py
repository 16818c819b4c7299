"""Reports made by hand: a small program whose values and gradients can be anything."""

import math
from dataclasses import dataclass

from labkit.bench import Reading, choice, dial
from labkit.probes.report import Culprit, Fate, Link, Op, Report
from labkit.probes.stats import DECADES, Histogram, Stats
from labkit.probes.verdict import Verdict

FINE = Stats((4, 3), "float32", 12, low=-2.0, high=3.0, small=0.1, large=3.0)
NAN = Stats((4, 3), "float32", 12, nan=12)
INF = Stats((4, 3), "float32", 12, pos_inf=5, low=0.0, high=2.0, small=1.0, large=2.0)
ZERO = Stats((4, 3), "float32", 12, zero=12, low=0.0, high=0.0)
EMPTY = Stats((0, 3), "float32", 0)
SUBNORMAL = Stats((1,), "float32", 1, low=1e-44, high=1e-44, small=1e-44, large=1e-44)
HUGE = Stats((1,), "float64", 1, low=-1.7e308, high=1.7e308, small=5e-324, large=1.7e308)
WHOLE = Stats((4,), "int64", 4, low=0.0, high=9.0, small=1.0, large=9.0)
EXTREMES = (FINE, NAN, INF, ZERO, EMPTY, SUBNORMAL, HUGE, WHOLE)


@dataclass(frozen=True)
class Settings:
    shift: float = dial(0.0, -1, 100, 0.5, "nats", "moves")
    guard: str = choice("none", ("none", "clamp"), "guards")


def histogram(word: str) -> Histogram | None:
    """What a gradient with this fate looks like."""
    decades = [0] * len(DECADES)
    counts = {"nan": 0, "pos_inf": 0, "zero": 0}
    if word == "none":
        return None
    if word in ("nan", "zero"):
        counts[word] = 12
    elif word == "inf":
        counts["pos_inf"] = 12
    else:
        decades[46] = 12
    return Histogram(12, tuple(decades), **counts)


def op(index, name, parents, value=FINE, gradient=FINE, line=1, group="f", **rest) -> Op:
    """A forward op of the program."""
    known = {"step": 0, "phase": "forward", "kind": "op", "target": "", "node": "AddBackward0"}
    known |= {"module": "", "function": group, "file": "vae.py", "line": line}
    known |= {"source": f"y = {name}(x)", "inputs": (), "outputs": (value,), "gradient": gradient}
    return Op(**{**known, **rest, "index": index, "name": name, "parents": parents})


def source(index, name, kind="parameter", value=FINE, gradient=FINE) -> Op:
    """A parameter, buffer or input."""
    return op(
        index, name, (), value, gradient, phase="source", kind=kind, node="", file="", source=""
    )


def program(values=(), gradients=(), cut=False) -> tuple[Op, ...]:
    """x and a weight to linear, exp and sub, then mean; one value and one gradient for each op."""
    v = [*values, *[FINE] * 4][:4]
    g = [*gradients, *[FINE] * 4][:4]
    return (
        source(0, "x", "input", gradient=None),
        source(1, "net.weight"),
        op(2, "linear", (0, 1), v[0], g[0], module="net", node="AddmmBackward0"),
        op(3, "exp", (2,), v[1], g[1], line=2, node="" if cut else "ExpBackward0", cut=cut),
        op(4, "sub", (2, 3), v[2], g[2], line=3),
        op(5, "mean", (4,), v[3], g[3], line=4, group="loss"),
        op(6, "ExpBackward0", (), v[1], None, line=2, phase="backward", forward=3),
    )


def report(ops=None, fates=("ok",), verdict="healthy", born=None, chain=()) -> Report:
    """A report of a made program."""
    ops = program() if ops is None else ops
    culprit = None
    if born is not None:
        it = ops[born]
        culprit = Culprit(
            it.phase, it.name, it.file, it.line, it.source, "", it.function, 0, position=born
        )
    names = ["net.weight", *(f"layer.{i}.bias" for i in range(99))]
    parameters = tuple(
        Fate(name, (4, 3), word, histogram(word), math.nan)
        for name, word in zip(names, fates, strict=False)
    )
    return Report(Verdict(verdict), culprit, tuple(chain), parameters, tuple(ops), (), (1.0,))


def reading(it: Report | None = None, **settings) -> Reading:
    """A reading of a made report."""
    it = report() if it is None else it
    return Reading(Settings(**settings), it.verdict, it, 1.0, 1.0)


def broken() -> Report:
    """Inf born in exp, NaN in what follows, a NaN gradient behind it."""
    ops = program((FINE, INF, NAN, NAN), (NAN, NAN, FINE, FINE))
    chain = (Link("born", 3, "exp"), Link("carried", 4, "sub"), Link("carried", 5, "mean"))
    return report(ops, ("nan", "inf", "ok"), "nan", born=3, chain=chain)
