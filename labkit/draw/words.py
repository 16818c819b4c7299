"""Ops and chains in words: what the panel says about the op under the pointer."""

from itertools import groupby

from labkit.draw.health import short
from labkit.probes.report import Link, Report
from labkit.probes.stats import Stats

HINT = "Point at an op, or walk through the graph with the arrow keys, to read its numbers."


def describe(report: Report, op: int) -> list[str]:
    """Lines about one op: where it stands, what it made, what comes back.

    With no op under the pointer (-1) it tells how the trouble spread.
    """
    if not 0 <= op < len(report.ops):
        return story(report)
    it = report.ops[op]
    lines = [
        ", ".join(
            part for part in (it.name, it.place, f"in {it.group}" if it.group else "") if part
        )
    ]
    if it.source:
        lines.append(it.source)
    lines += [f"value {stats_words(stats)}" for stats in it.outputs[:2]]
    if it.gradient is not None:
        lines.append(f"gradient {stats_words(it.gradient)}")
    return lines


def story(report: Report) -> list[str]:
    """The causal chain in at most a few lines, or what to do where nothing went wrong."""
    lines = [
        _together(list(links)) for _, links in groupby(report.chain, key=lambda link: link.event)
    ]
    return lines[:4] or [HINT]


def stats_words(stats: Stats) -> str:
    """A tensor's shape, dtype, range and what is bad in it."""
    shape = "×".join(map(str, stats.shape)) or "scalar"
    parts = [f"{shape} {stats.dtype}"]
    if stats.low == stats.low:
        parts.append(f"{short(stats.low)} to {short(stats.high)}")
    counts = {"NaN": stats.nan, "+Inf": stats.pos_inf, "−Inf": stats.neg_inf, "zero": stats.zero}
    return ", ".join([*parts, *(f"{n} {name}" for name, n in counts.items() if n)])


def cell_of(report: Report, op: int) -> int:
    """The forward op whose cell stands for this op in the graph; -1 if there is none."""
    if not 0 <= op < len(report.ops):
        return -1
    forward = report.ops[op].forward
    return op if forward is None else forward


def _together(links: list[Link]) -> str:
    """Some links of one kind as one line."""
    first, last = links[0], links[-1]
    rest = len(links) - 1
    if first.event == "harmed":
        return f"{first.event}: {first.text}" + (f" and {rest} more parameters" if rest else "")
    if not rest:
        return f"{first.event}: {first.text}"
    start, end = (link.text.partition(": ")[0] for link in (first, last))
    return f"{first.event}: {start} … {end} ({len(links)} ops)"
