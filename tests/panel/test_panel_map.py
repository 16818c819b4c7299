"""The failure map in the panel: sent once, its ring moves with every turn, a click is a turn."""

import pytest
import toy_bench as toy
from page import hand

from labkit.bench import Bench
from labkit.panel import Panel

LARGEST_MAP = 30_000  # characters of JSON; sent only when another map holds


@pytest.fixture
def panel():
    panel = Panel(Bench("exploding_logvar"))
    yield panel
    panel.close()


def cell_of(panel, **wanted):
    return next(cell for cell in panel.chart["cells"] if cell["set"] == wanted)


def test_a_failure_without_a_map_shows_none():
    panel = Panel(Bench(toy))
    assert panel.chart == panel.frame["here"] == {}
    panel.close()


def test_a_slider_moves_the_ring_and_sends_no_map(panel, sent):
    hand(panel, shift=80.0)
    there = cell_of(panel, shift=80.0, dtype="float32")
    assert {k: panel.frame["here"][k] for k in "xy"} == {k: there[k] for k in "xy"}
    assert not any("chart" in state for state in sent)
    assert len(str(panel.chart)) < LARGEST_MAP


def test_another_option_brings_its_map_and_the_ring_in_one_message(panel, sent):
    hand(panel, guard="clamp")
    (state,) = [state for state in sent if "chart" in state]
    assert "frame" in state
    assert "○ dead" in state["chart"]["svg"]
    assert "form" not in panel.frame["here"]["aside"]


def test_a_cell_sets_the_bench_there_and_the_badge_says_its_verdict(panel):
    for cell in panel.chart["cells"][::9]:
        hand(panel, **cell["set"])
        assert cell["words"].endswith(f": {panel.frame['badge']['word']}")
        assert panel.frame["here"]["x"] == cell["x"]


def test_a_repair_of_the_learner_is_named(panel):
    panel.bench.turn(repair=lambda logvar: logvar.clamp(-10, 10))
    assert "your repair is on the bench" in panel.frame["here"]["aside"]
    panel.bench.turn(repair=None)
    assert panel.frame["here"]["aside"] == ""


def test_a_knob_that_left_the_map_is_named():
    bench = Bench("distance_at_zero")
    panel = Panel(bench)
    bench.turn(gap=-4.0)
    assert panel.frame["here"]["aside"] == "the map was measured at gap 0"
    panel.close()


def test_every_class_of_the_map_has_a_colour(panel):
    for guard in ("none", "clamp", "straight-through"):
        hand(panel, guard=guard)
        for part in panel.chart["svg"].split('class="')[1:]:
            assert f".{part.partition(chr(34))[0]}{{" in panel._css
    assert all(f".lk-{role}{{" in panel._css for role in ("stand", "stand-halo", "cursor"))


def test_the_board_of_a_run_goes_with_every_moment():
    bench = Bench("watch_it_spread")
    panel = Panel(bench)
    bench.turn("broken", step=1, op=2)
    assert "128 of 2048" in panel.chart["svg"]
    assert "765 of 12240" not in panel.chart["svg"]
    hand(panel, op=7)
    assert "765 of 12240" in panel.chart["svg"]
    assert panel.frame["badge"]["line"].endswith("log_mu: 765 of 12240 bad, 1 of 16 cells")
    square = cell_of(panel, step=1, op=7)
    assert {k: panel.frame["here"][k] for k in "xy"} == {k: square[k] for k in "xy"}
    assert panel.graph["id"] == (hand(panel, op=12) or panel.graph["id"])  # laid out once
    assert len(str(panel.chart)) < 2 * LARGEST_MAP
    panel.close()
