"""One small histogram per parameter on one common log axis, worst first.

The five bins that a plain histogram drops (NaN, +Inf, -Inf, zero, subnormal) are columns that are
always there, also when empty.
"""

from collections.abc import Iterator

from labkit.draw.health import count
from labkit.draw.scene import SMALL, Box, Item, Scene, Words, line, shortened, width_of
from labkit.draw.theme import STATES
from labkit.probes.report import Fate, Report
from labkit.probes.stats import DECADES

WIDTH = 640.0
TOP, ROW = 32.0, 14.0
NAME, LEFT, RIGHT = 14.0, 180.0, 422.0  # of the names, of the histograms
COLUMNS = {"NaN": 466.0, "+Inf": 502.0, "-Inf": 538.0, "zero": 576.0, "subnormal": 638.0}
ROLES = {"NaN": "nan", "+Inf": "inf", "-Inf": "inf", "zero": "zero", "subnormal": "vanishing"}
MOST = 14  # rows
ORDER = ("nan", "inf", "none", "zero", "exploding", "vanishing", "not updated", "ok")


def fates_of(report: Report) -> tuple[Fate, ...]:
    """Parameters, worst first; those that fare alike stay in the model's order."""
    return tuple(sorted(report.parameters, key=lambda f: (bool(f.excused), _rank(f))))


def gradients_scene(report: Report) -> Scene:
    """Gradient histograms of the worst parameters."""
    fates = fates_of(report)
    shown = fates[: MOST if len(fates) <= MOST else MOST - 1]
    height = TOP + ROW * (len(shown) + (len(fates) > len(shown))) + 16
    items: list[Item] = [*_axis(height - 14)]
    for i, fate in enumerate(shown):
        items += _row(fate, TOP + i * ROW)
    items += _rest(fates[len(shown) :], TOP + len(shown) * ROW + ROW / 2)
    return Scene(WIDTH, height, tuple(items), _alt(report))


def _rank(fate: Fate) -> int:
    return ORDER.index(fate.word) if fate.word in ORDER else 0


def _x(power: float) -> float:
    return LEFT + (power - DECADES.start) / (DECADES.stop - DECADES.start) * (RIGHT - LEFT)


def _axis(bottom: float) -> Iterator[Item]:
    yield Words(0, 7, "Gradients, worst first", bold=True)
    yield Words((LEFT + RIGHT) / 2, 24, "magnitude of the entries", "muted", "middle", SMALL)
    for power in range(-40, 40, 20):
        x = _x(power)
        yield line("grid", (x, TOP), (x, bottom))
        yield Words(x, bottom + 8, f"1e{power}" if power else "1", "muted", "middle", SMALL)
    for name, x in COLUMNS.items():
        yield Words(x, 24, name.replace("-", "−"), "muted", "end", SMALL)


def _row(fate: Fate, y: float) -> Iterator[Item]:
    state = STATES.get(fate.word, STATES["error"])
    middle = y + ROW / 2
    if fate.word != "ok":
        yield Words(0, middle, state.mark, f"mark {fate.word}" if not fate.excused else "muted")
    yield Words(NAME, middle, _named(fate.name), "ink")
    if fate.gradient is None:
        yield Words(LEFT, middle, f"no gradient{_because(fate)}", "title")
        return
    yield from _bars(fate, y)
    if fate.excused:
        yield _excuse(fate, middle)
    for name, n in fate.gradient.special.items():
        yield from _special(name, n, fate.gradient.size, middle)


def _bars(fate: Fate, y: float) -> Iterator[Item]:
    yield line("grid", (LEFT, y + ROW - 1), (RIGHT, y + ROW - 1))
    most = max(fate.gradient.decades, default=0)
    step = _x(1) - _x(0)
    for i, n in enumerate(fate.gradient.decades):
        if n:
            tall = max(2.0, (ROW - 3) * n / most)
            yield Box(LEFT + i * step, y + ROW - 1 - tall, step - 0.5, tall, "mark ok")


def _excuse(fate: Fate, middle: float) -> Words:
    """Why an odd gradient is no fault, on the side of its bars that has more room."""
    bins = [i for i, n in enumerate(fate.gradient.decades) if n] or [len(DECADES) - 1]
    step = _x(1) - _x(0)
    before, after = LEFT + bins[0] * step - 6, LEFT + (bins[-1] + 1) * step + 6
    right = RIGHT - after > before - LEFT
    words = shortened(f"excused: {fate.excused}", max(RIGHT - after, before - LEFT), SMALL)
    return Words(after if right else LEFT, middle, words, "muted", size=SMALL)


def _special(name: str, n: int, size: int, middle: float) -> Iterator[Item]:
    """A count in its column; boxed where it is a fault: NaN, Inf, or zero everywhere."""
    right, text = COLUMNS[name], count(n) if n else "·"
    if n and (name in ("NaN", "+Inf", "-Inf") or n == size):
        wide = width_of(text, SMALL) + 6
        yield Box(right - wide + 3, middle - 6, wide, 12, ROLES[name], 2)
        yield Words(right, middle, text, f"on {ROLES[name]}", "end", SMALL)
    else:
        yield Words(right, middle, text, "ink" if n else "muted", "end", SMALL)


def _rest(fates: tuple[Fate, ...], middle: float) -> Iterator[Item]:
    if fates:
        sick = sum(fate.word != "ok" and not fate.excused for fate in fates)
        state = f"{sick} of them sick" if sick else "all well"
        yield Words(NAME, middle, f"and {len(fates)} more parameters, {state}", "muted")


def _named(name: str) -> str:
    """The end of a long name tells more than its beginning."""
    while width_of(name) > LEFT - NAME - 8:
        name = "…" + name.lstrip("…")[1:]
    return name


def _because(fate: Fate) -> str:
    return f": {fate.excused}" if fate.excused else ""


def _alt(report: Report) -> str:
    worst = fates_of(report)[:3]
    words = ", ".join(f"{fate.name}: {fate.word}" for fate in worst)
    return f"Gradient histograms of {len(report.parameters)} parameters, worst first: {words}."
