"""Every form of a failure on the same bench, side by side, and the learner's beside them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from labkit.bench import Bench, Reading


@dataclass(frozen=True)
class Row:
    """How one form does: at the broken setting first, then what it costs a healthy run."""

    form: str
    verdict: str
    alive: str  # "6 of 12, 6 harmed": what the badge counts, `Report.tally`
    digits: str  # agreement with float64 at the broken setting
    healthy: str  # does the healthy run keep its value?
    cost: str  # tensor operations added to a healthy step

    HEADER = ("form", "verdict", "gradients alive", "digits", "healthy run", "cost")

    @property
    def cells(self) -> tuple[str, ...]:
        return (self.form, self.verdict, self.alive, self.digits, self.healthy, self.cost)


@dataclass(frozen=True)
class Comparison:
    """Rows of a plain table; ``str`` lays them out."""

    rows: tuple[Row, ...]

    def __str__(self) -> str:
        lines = [Row.HEADER, *(row.cells for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(Row.HEADER))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    __repr__ = __str__


def compare(bench: Bench, yours: Callable | None = None) -> Comparison:
    """Run each of the failure's forms, and `yours`, at the broken and the healthy case.

    Args:
        bench: any bench of the failure; it is left where it stands.
        yours: the learner's function, as given to `Bench.turn(repair=...)`.

    Returns:
        A `Comparison` with one row per form.
    """
    failure = bench.failure
    plain = failure.run(failure.CASES["healthy"])
    forms = [(name, None) for name in failure.FORMS] + ([("yours", yours)] if yours else [])
    return Comparison(tuple(_row(failure, name, repair, plain) for name, repair in forms))


def _row(failure, name: str, repair: Callable | None, plain: Reading) -> Row:
    form = {} if repair else {failure.FORM_KNOB: name}
    broken = failure.run(replace(failure.CASES["broken"], **form), repair=repair)
    healthy = failure.run(replace(failure.CASES["healthy"], **form), repair=repair)
    extra = len(healthy.report.ops) - len(plain.report.ops)
    return Row(
        form=name,
        verdict=str(broken.verdict),
        alive=", ".join(broken.report.tally),
        digits=_digits(broken.value, broken.reference),
        healthy="unchanged" if healthy.value == plain.value else _change(healthy, plain),
        cost=f"{extra:+d} ops" if extra else "none",
    )


def _digits(value: float, truth: float) -> str:
    """How many decimal digits of `value` are right."""
    if not math.isfinite(value):
        return "none"
    if value == truth:
        return "all"
    scale = abs(truth) or 1.0
    return str(max(0, math.floor(-math.log10(abs(value - truth) / scale))))


def _change(reading: Reading, plain: Reading) -> str:
    return f"changed, {_digits(reading.value, plain.value)} digits kept"
