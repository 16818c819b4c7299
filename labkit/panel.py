"""A bench to turn by hand: one widget, plain Python behind it.

`Panel(bench)` shows the controls of a bench and the pictures of its reading. The hand and the code
go through the same door: a slider calls `bench.turn`, and a `bench.turn` in another cell moves the
slider and the pictures. The page (panel.js) holds no logic of the subject; it draws what it gets.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from labkit import maps
from labkit.bench import Bench, Knob, Reading
from labkit.draw import draw_picture, live

HERE = Path(__file__).parent
ENDS = ("healthy", "broken")  # the cases that a track names first
DARK = ':is([data-jp-theme-light="false"], .vscode-dark) '  # how a page says that it is dark


class Panel(anywidget.AnyWidget):
    """Knobs, badge, propagation graph, timeline, gradients and failure map of one bench.

    Args:
        bench: the bench to show; it is turned once if it was never turned.
    """

    _esm = HERE / "panel.js"
    _css = "\n".join([(HERE / "panel.css").read_text(), live.css(), live.css(True, DARK)])

    spec = traitlets.Dict().tag(sync=True)  # what never changes: title, knobs, cases, card
    settings = traitlets.Dict().tag(sync=True)  # both ways: what the hand or the code has set
    graph = traitlets.Dict().tag(sync=True)  # the graph of this topology, laid out
    frame = traitlets.Dict().tag(sync=True)  # what this reading shows
    chart = traitlets.Dict().tag(sync=True)  # the failure map of these options; empty: none
    pointed = traitlets.Int(-1).tag(sync=True)  # from the page: the op under the pointer, or -1
    detail = traitlets.Dict().tag(sync=True)  # words about that op

    def __init__(self, bench: Bench, **kwargs: Any):
        self._leave: Callable[[], None] = lambda: None  # a panel that fails below is closed too
        self.bench = bench
        if bench.reading is None:
            bench.turn()
        super().__init__(spec=spec(bench), settings=asdict(bench.settings), **kwargs)
        self._show(bench.reading)
        self.observe(self._moved, "settings")
        self.observe(self._pointed, "pointed")
        self._leave = bench.watch(self._show)

    def close(self) -> None:
        """Take the panel off the page and off the bench."""
        self._leave()
        super().close()

    def _moved(self, change: dict[str, Any]) -> None:
        """The hand has set something: turn the bench; what goes wrong is shown, not lost."""
        try:
            now = asdict(self.bench.settings)
            if moved := {
                knob: value for knob, value in change["new"].items() if value != now[knob]
            }:
                self.bench.turn(**moved)  # a form that stays is not asked for, and leaves a repair
            elif self.frame["badge"]["status"] == "error":  # the hand came back
                self._show(self.bench.reading)
        except Exception as error:
            self.frame = self.frame | {"badge": live.error_badge(error), "of": change["new"]}

    def _show(self, reading: Reading) -> None:
        """One message to the page with everything that this reading changes."""
        with self.hold_sync():
            self.settings = asdict(reading.settings)
            if live.topology(reading.report) != self.graph.get("id"):
                self.graph = live.graph(reading.report)
                self.pointed = -1  # its ops have other numbers
            here = self._chart(reading.settings)
            own = {"of": self.settings, "code": self.bench.code(), "here": here}
            self.frame = {**live.frame(reading), **own}
            self.detail = live.detail(reading.report, self.pointed)

    def _chart(self, settings: Any) -> dict[str, Any]:
        """Where the bench stands on its map or board, which is sent first if it is another one."""
        failure = self.bench.failure
        if hasattr(failure, "board"):
            board = failure.board(settings, self.bench.repair)
            self.chart = {"id": repr(settings), **live.board(board)}
            return live.moment(board)
        found = maps.stored(failure, settings)
        if found is None:
            return {}
        layer = maps.layer_of(failure, settings)
        if layer != self.chart.get("id"):
            self.chart = {"id": layer, **live.chart(found)}
        return live.here(found, maps.held(failure), self.bench.repair)

    def _pointed(self, change: dict[str, Any]) -> None:
        self.detail = live.detail(self.bench.reading.report, change["new"])

    def __repr__(self) -> str:
        return f"{self.bench.reading}\n{self.bench.code()}"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        """The widget, and for a notebook without a kernel the picture and its words."""
        data, metadata = super()._repr_mimebundle_(**kwargs)
        still, size = draw_picture(self.bench.reading)._repr_mimebundle_()
        return {**data, **still, "text/plain": repr(self)}, {**metadata, **size}


def spec(bench: Bench) -> dict[str, Any]:
    """What the page needs once: words, knobs and the settings of the cases."""
    failure = bench.failure
    cases = {name: asdict(settings) for name, settings in failure.CASES.items()}
    return {
        "title": failure.TITLE,
        "symptom": failure.SYMPTOM,
        "cases": cases,
        "knobs": [_knob(knob, cases) for knob in bench.knobs.values()],
        "card": _card(failure),
    }


def _knob(knob: Knob, cases: dict[str, dict]) -> dict[str, Any]:
    words = {"name": knob.name, "help": knob.help, "unit": knob.unit}
    if knob.options:
        return {**words, "options": list(knob.options)}
    return {
        **words,
        "low": knob.low,
        "step": knob.step,
        "count": round((knob.high - knob.low) / knob.step),
        "marks": _marks(knob, cases),
    }


def _marks(knob: Knob, cases: dict[str, dict]) -> list[dict[str, Any]]:
    """Where the cases stand on the track; none where they all stand at one place."""
    places: dict[float, list[str]] = {}
    for case, settings in cases.items():
        places.setdefault(settings[knob.name], []).append(case)
    ends = {value: [n for n in names if n in ENDS] or names for value, names in places.items()}
    marks = [
        {"value": value, "share": (value - knob.low) / (knob.high - knob.low), "words": words}
        for value, words in sorted((value, ", ".join(names)) for value, names in ends.items())
    ]
    return marks if len(marks) > 1 else []


def _card(failure: Any) -> list[list[str]]:
    """Symptom, cause and repair, folded below the pictures."""
    claim = getattr(failure, "CLAIM", None)
    lines = [["Symptom", failure.SYMPTOM]]
    if claim is not None:
        lines += [
            ["The guide says", claim.translation],
            [f"Measured: {claim.verdict}", claim.truth],
        ]
    lines += [[name.capitalize(), text] for name, text in getattr(failure, "CARD", {}).items()]
    lines += [["Sources", "; ".join(getattr(failure, "SOURCES", ()))]]
    return [line for line in lines if line[1]]
