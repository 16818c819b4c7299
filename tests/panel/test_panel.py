"""The panel without a browser: the hand and the code go through one door and see the same."""

import re

import pytest
import toy_bench as toy
from matplotlib.figure import Figure
from page import hand

from labkit.bench import Bench
from labkit.draw import layout, live
from labkit.panel import HERE, Panel

LARGEST_MESSAGE = 60_000  # characters of JSON for one move; the page draws it in one frame


@pytest.fixture
def bench():
    return Bench(toy)


@pytest.fixture
def panel(bench):
    panel = Panel(bench)
    yield panel
    panel.close()


def status(panel):
    return panel.frame["badge"]["status"]


def said(panel):
    badge = panel.frame["badge"]
    return f"{badge['word']}: {badge['line']}"


def test_the_hand_turns_the_bench_and_sees_the_reading(bench, panel):
    hand(panel, shift=90)
    assert bench.settings.shift == 90.0
    assert status(panel) == "inf"
    assert said(panel) == str(bench.reading)
    assert panel.frame["code"] == bench.code() == "Bench('toy_bench').turn(shift=90.0)"


def test_the_code_moves_the_panel(bench, panel):
    bench.turn("broken")
    assert panel.settings == {"shift": 90.0, "scale": 1.0, "guard": "none"}
    assert status(panel) == "inf"
    bench.turn(guard="clamp")
    assert panel.settings["guard"] == "clamp"
    assert said(panel) == str(bench.reading)


def test_a_move_of_the_hand_is_answered_by_one_message(panel, sent):
    hand(panel, shift=90)
    frames = [state for state in sent if "frame" in state]
    assert len(frames) == 1
    assert not any("settings" in state for state in sent)  # the hand knows where it is
    assert not any("graph" in state for state in sent)
    assert len(str(frames[0])) < LARGEST_MESSAGE


def test_the_hand_cannot_make_the_bench_turn_twice(bench, panel):
    turns = []
    bench.watch(turns.append)
    hand(panel, shift=30)
    hand(panel, shift=30)
    assert len(turns) == 1


def test_a_new_topology_comes_with_its_health_in_one_message(panel, sent):
    before = panel.graph["id"]
    hand(panel, guard="clamp")
    (state,) = [state for state in sent if "graph" in state]
    assert state["graph"]["id"] != before
    keys = set(re.findall(r'data-key="([^"]+)"', state["graph"]["svg"]))
    assert keys == state["frame"]["live"].keys()


def test_a_numeric_knob_lays_out_nothing_and_builds_no_figure(panel, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("a slider move must not come here")

    monkeypatch.setattr(layout, "_answer", never)
    monkeypatch.setattr(Figure, "__init__", never)
    for shift in (0.5, 50, 90, 100):
        hand(panel, shift=shift)
    assert status(panel) == "inf"


def test_an_error_is_shown_and_the_last_picture_stays(panel):
    before = panel.frame
    hand(panel, guard="raise")
    assert panel.frame["badge"] == {
        "status": "error",
        "mark": "!",
        "word": "RuntimeError",
        "line": "this guard always fails: choose another",
    }
    assert panel.frame["timeline"] == before["timeline"]
    hand(panel, guard="none")  # back to where the bench still is
    assert status(panel) == "healthy"


def test_a_frame_says_which_settings_it_answers(panel):
    for settings in ({"shift": 90.0}, {"guard": "raise"}):  # a reading, and an error
        hand(panel, **settings)
        assert panel.frame["of"] == panel.settings


def test_a_value_out_of_range_is_shown_with_what_was_expected(bench, panel):
    hand(panel, shift=4000)
    assert "expected -10 to 100 nats; got 4000" in panel.frame["badge"]["line"]
    assert bench.settings.shift == 0.0


def test_an_error_in_the_code_stays_in_the_cell_and_off_the_panel(bench, panel):
    with pytest.raises(ValueError, match="expected one of"):
        bench.turn(guard="prayer")
    assert status(panel) == "healthy"


def test_an_error_in_drawing_is_shown_too(panel, monkeypatch):
    monkeypatch.setattr(live, "timeline_scene", lambda report: 1 / 0)
    hand(panel, shift=50)
    assert panel.frame["badge"]["word"] == "ZeroDivisionError"


def test_two_panels_of_one_bench_follow_each_other(bench, panel):
    other = Panel(bench)
    hand(panel, shift=90)
    assert other.settings["shift"] == 90.0
    assert status(other) == "inf"
    other.close()


def test_a_closed_panel_no_longer_listens(bench):
    panel = Panel(bench)
    panel.close()
    bench.turn("broken")
    assert status(panel) == "healthy"


def test_pointing_at_an_op_tells_about_it_and_follows_the_reading(bench, panel):
    exp = next(op for op in bench.reading.report.ops if op.name == "exp")
    panel.set_state({"pointed": exp.index})
    assert panel.detail["cell"] == exp.index
    assert panel.detail["words"][0] == f"exp, {exp.place}, in {exp.group}"
    hand(panel, shift=90)
    assert "+Inf" in " ".join(panel.detail["words"])
    panel.set_state({"pointed": -1})
    assert panel.detail["words"][0].startswith("born")


def test_a_saved_notebook_gets_the_picture_and_stable_words(bench, panel):
    bench.turn("broken")
    data, metadata = panel._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.model_id
    assert data["image/png"].startswith(b"\x89PNG")
    assert metadata["image/png"]["width"] > 400
    assert data["text/plain"] == f"{bench.reading}\nBench('toy_bench').turn(shift=90.0)"


def test_the_page_learns_the_knobs_from_the_knobs_alone(panel):
    shift, scale, guard = panel.spec["knobs"]
    assert (shift["name"], shift["unit"], shift["help"]) == ("shift", "nats", "added to the weight")
    assert (shift["low"], shift["step"], shift["count"]) == (-10, 0.5, 220)
    assert [(mark["value"], mark["words"]) for mark in shift["marks"]] == [
        (0.0, "healthy"),
        (90.0, "broken"),
    ]
    assert scale["marks"] == []  # every case stands at one place
    assert scale["count"] == 20
    assert guard["options"] == ["none", "clamp", "raise"]
    assert panel.spec["cases"]["broken"]["shift"] == 90.0
    assert ["Measured: false", "It overflows at 88.72."] in panel.spec["card"]


def test_the_page_asks_for_traits_that_exist(panel):
    page = (HERE / "panel.js").read_text()
    asked = set(re.findall(r'model\.[gs]et\("(\w+)"', page))
    assert asked
    assert asked <= set(panel.keys)


def test_every_class_that_the_page_gets_has_a_colour(panel):
    classes = set(
        re.findall(r'class="(lk-[\w-]+)"', panel.graph["svg"] + panel.frame["timeline"]["svg"])
    )
    classes |= {role for role, _ in panel.frame["live"].values()}
    assert classes
    assert all(f".{name}{{" in panel._css for name in classes)


@pytest.mark.parametrize("knob", ["shift", "dtype", "guard"])
def test_every_knob_of_the_exploding_logvar_over_its_range(knob):
    bench = Bench("exploding_logvar")
    panel = Panel(bench)
    bench.turn("broken")
    seen = set()
    for value in bench.knobs[knob].grid(9):
        hand(panel, **{knob: value})
        assert said(panel) == str(bench.reading)
        assert getattr(bench.settings, knob) == value
        seen.add(status(panel))
    assert "error" not in seen
    assert len(seen) > 1
    panel.close()


def test_a_slider_leaves_a_repair_where_it_is_and_a_form_takes_its_place():
    bench = Bench("exploding_logvar")
    panel = Panel(bench)
    bench.turn(repair=lambda logvar: logvar.clamp(-10, 10))
    mine = bench.repair
    panel.settings = {**panel.settings, "shift": 20.0}
    assert bench.settings.shift == 20.0
    assert bench.repair is mine
    panel.settings = {**panel.settings, "guard": "straight-through"}
    assert bench.repair is None
    assert bench.reading.verdict == "healthy"
