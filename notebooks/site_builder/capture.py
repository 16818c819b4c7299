"""Run a notebook's code once and note what moves in it: its strips, its panels, its maps.

A page has no kernel, so every position of every control is measured here, ahead of time. The
notebook itself says which positions those are: the stops of its strips, the cases of its panel,
the cells of its map. Nothing is drawn but what a page shows.
"""

import builtins
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

SHOWS = ("draw_strip(", "Panel(", "draw_map(")  # what a page can move
FOLDER = Path(__file__).resolve().parents[1]


def captured(notebook: Path) -> list[dict[str, Any]]:
    """The exhibits of a notebook, each with the number of its cell.

    Its code runs in a process of its own, as in a kernel: nothing of one notebook reaches the next.

    Args:
        notebook: the file; what follows the last cell that shows something movable is not run.

    Raises:
        RuntimeError: its code failed.
    """
    if not any(shows(cell) for cell in nbformat.read(notebook, as_version=4).cells):
        return []
    from builder.run import SAME_AGAIN

    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "exhibits.json"
        command = [sys.executable, "-m", "site_builder.capture", str(notebook.resolve()), found]
        done = subprocess.run(
            command, cwd=FOLDER, env={**os.environ, **SAME_AGAIN}, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{notebook.name}: its code failed.\n{done.stderr[-2000:]}")
        return json.loads(found.read_text(encoding="utf-8"))


def shows(cell: NotebookNode) -> bool:
    """Whether something in a cell can be moved on a page."""
    return cell.cell_type == "code" and any(name in cell.source for name in SHOWS)


class Recorder:
    """Stands in for what draws and for the panel, and notes what they were asked to show."""

    def __init__(self):
        self.cell = 0
        self.exhibits: list[dict[str, Any]] = []
        self.mapped: set[str] = set()  # failures whose maps are noted

    def strip(self, readings: Sequence[Any], knob: str) -> None:
        """In place of `draw_strip`."""
        from site_builder.exhibit import strip_exhibit

        self._note(strip_exhibit(readings, knob))

    def panel(self, bench: Any, **_: Any) -> None:
        """In place of `Panel`."""
        from site_builder.exhibit import cases_exhibit

        self._note(cases_exhibit(bench.failure))
        self._map(bench.failure, bench.settings)

    def chart(self, chart: Any) -> None:
        """In place of `draw_map`."""
        from site_builder.exhibit import failure_of

        self._map(failure_of(chart.settings), chart.settings)

    def _map(self, failure: Any, settings: Any) -> None:
        """The maps of a failure, once on a page: they are the same wherever they are shown."""
        from site_builder.exhibit import map_exhibit, name_of

        if hasattr(failure, "MAP") and name_of(failure) not in self.mapped:
            self.mapped.add(name_of(failure))
            self._note(map_exhibit(failure, settings))

    def _note(self, exhibit: dict[str, Any]) -> None:
        self.exhibits.append({"cell": self.cell, **exhibit})


def _record(notebook: NotebookNode) -> list[dict[str, Any]]:
    recorder = Recorder()
    last = max(index for index, cell in enumerate(notebook.cells) if shows(cell))
    code = {
        index: compile(cell.source, f"cell {index + 1}", "exec")
        for index, cell in enumerate(notebook.cells[: last + 1])
        if cell.cell_type == "code"
    }
    names: dict[str, Any] = {"__name__": "__main__"}
    with _instead_of_drawing(recorder):
        for index, program in code.items():
            recorder.cell = index
            expected = "raises-exception" in notebook.cells[index].metadata.get("tags", ())
            with contextlib.suppress(*[Exception] * expected):
                exec(program, names)
    return recorder.exhibits


@contextlib.contextmanager
def _instead_of_drawing(recorder: Recorder) -> Iterator[None]:
    """Cells show what they make with `display`, or as their last line: here both are silent."""
    from labkit import draw, panel

    panel.Panel, draw.draw_strip, draw.draw_map = recorder.panel, recorder.strip, recorder.chart
    builtins.display = lambda *shown, **_: None
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


if __name__ == "__main__":
    source, target = sys.argv[1:]
    kept = _record(nbformat.read(source, as_version=4))
    Path(target).write_text(json.dumps(kept), encoding="utf-8")
