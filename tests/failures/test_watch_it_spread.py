"""How far a bad number gets, where it stops, and what each loop saves."""

from dataclasses import replace

import pytest
import torch

from labkit.bench import Bench
from labkit.draw.board import board_scene, board_words, squares
from labkit.draw.plan import plan
from labkit.failures import watch_it_spread as lab
from labkit.failures._spreading import BACKWARD, CELLS, FORWARD, ROWS, STEPS, Poison, Training
from labkit.probes.verdict import Verdict

NAN = lab.CASES["broken"]
LAST = len(ROWS) - 1
AT = {name: row for row, name in enumerate(ROWS)}
CLOSE = 1e-6  # relative, of losses in float32 and float64 after two training steps


@pytest.fixture
def bench():
    return Bench(lab)


def column(settings, step=1):
    return lab.board(settings).columns[step]


def test_a_nan_in_one_count_takes_its_cell_and_stays_in_it_until_the_weights():
    squares = column(NAN)
    assert (squares[0].bad, squares[0].size) == (1, 12240)
    for name in (*FORWARD[2:], *(f"∇ {name}" for name in BACKWARD)):
        here = squares[AT[name]]
        assert here.cells == 1, name
        assert here.bad * CELLS == here.size, name  # all of one cell, nothing of the others
    for name in ("gradients", "Adam's memory", "parameters"):
        assert squares[AT[name]].bad == squares[AT[name]].size, name


def test_step_0_is_well_and_step_2_is_lost():
    assert not any(square.bad for square in column(NAN, 0))
    assert column(NAN, 2)[AT["loss"]].bad == CELLS
    assert lab.board(NAN).safe == (True, False, False)


def test_batchnorm_brings_the_meeting_of_the_cells_to_the_front():
    off, on = column(NAN), column(replace(NAN, norm="on"))
    assert off[AT["fc_mu"]].cells == 1
    assert on[AT["fc_mu"]].cells == CELLS
    assert on[AT["fc_logvar"]].cells == 1  # beside the norm
    assert on[AT["running means"]].bad == 16


def test_adam_keeps_one_nan_and_gives_it_to_one_weight_then_to_all_cells():
    settings = replace(NAN, phase="memory")
    first, second = column(settings), column(settings, 2)
    assert first[AT["Adam's memory"]].bad == first[AT["parameters"]].bad == 1
    assert first[AT["loss"]].bad == 0
    assert second[AT["fc_mu"]].bad == second[AT["fc_mu"]].size


def test_an_infinite_loss_harms_no_parameter(bench):
    settings = replace(NAN, kind="zero", place="library")
    reading = bench.turn("broken", kind="zero", place="library", step=1)
    assert column(settings)[AT["loss"]].word == "inf"
    assert reading.verdict == Verdict.INF
    assert not reading.report.harmed
    assert lab.board(settings).spread.bad == 0


def test_a_gradient_stops_at_a_unit_that_sleeps_and_passes_one_that_is_awake():
    training = Training(Poison("none", "forward", "counts", 0, 0), lab.plain, "off")
    seen = {}
    training.program.look = lambda name, value: seen.setdefault((name, len(seen)), value.detach())
    training.begin(0)
    training.take(0)
    training.program.look = lambda name, value: seen.update({name: value.detach()})
    training.begin(1)
    training.take(1)
    cell = int(NAN.cell)
    awake = (seen["hidden"][cell] > 0).tolist()
    for unit in (awake.index(True), awake.index(False)):
        settings = replace(NAN, phase="backward", place="hidden", entry=float(unit))
        assert column(settings)[AT["∇ hidden"]].bad == 1
        assert (column(settings)[AT["gradients"]].bad > 0) == awake[unit]


@pytest.mark.parametrize(
    ("loop", "norm", "verdict"),
    [("plain", "off", "nan"), ("clip", "off", "nan"), ("nanmean", "off", "nan"),
     ("skip", "off", "healthy"), ("skip", "on", "nan"), ("quarantine", "on", "healthy")],
)  # fmt: skip
def test_what_each_loop_saves(bench, loop, norm, verdict):
    assert bench.turn("broken", loop=loop, norm=norm).verdict == verdict


def test_quarantine_loses_one_cell_and_skip_loses_the_batch(bench):
    kept, skipped = bench.turn("repaired"), bench.turn("broken", loop="skip")
    assert kept.value == pytest.approx(kept.reference, rel=CLOSE)
    assert skipped.value != pytest.approx(skipped.reference, rel=1e-4)


def test_the_board_of_the_quarantine_has_its_first_look_too():
    squares = column(lab.CASES["repaired"])
    assert squares[AT["loss"]].bad == 1  # the look under no_grad; the second pass was well
    assert not any(squares[AT[f"∇ {name}"]].bad for name in BACKWARD)
    assert squares[AT["gradients"]].bad == 0


def test_a_moment_knows_nothing_of_what_comes(bench):
    bench.turn("broken", step=1)
    for op in range(len(ROWS)):
        report = bench.turn(op=op).report
        counted = column(NAN)[: op + 1]
        assert (bench.reading.verdict == "healthy") == (not any(s.bad for s in counted))
        if op < AT["∇ log_r"]:
            assert not report.harmed
            assert not any(
                o.outputs[0].size for o in report.ops if o.phase == "backward" and o.outputs
            )
        ran = [o.name for o in report.ops if o.phase == "forward" and any(s.bad for s in o.outputs)]
        assert ("nb_log_likelihood_from_logs" in ran) == (op >= AT["likelihood"])
        assert ("expm1" in ran) == (op >= AT["loss"])


def test_a_graph_keeps_its_places_while_it_is_walked(bench):
    bench.turn("broken", step=1)
    assert len({plan(bench.turn(op=op).report).number for op in range(len(ROWS))}) == 1


def test_the_trail_is_cold_one_step_later(bench):
    assert bench.turn("broken", step=1).culprit.op == "masked_fill"
    assert bench.turn("broken", step=2).culprit.name == "encoder.input_layer.weight"


def test_a_refused_step_is_no_fault(bench):
    reading = bench.turn("broken", loop="skip", step=1)
    assert reading.verdict == "healthy"
    assert reading.culprit is None


def test_blast_radius_half_life_and_last_copy():
    spread = lab.board(NAN).spread
    assert (spread.first_whole, spread.half_life) == ("gradients, step 1", LAST)
    assert (spread.bad, spread.size, spread.last_safe) == (898206, 898206, 0)
    assert "last copy that would save the run: the one after step 0" in str(spread)
    well = lab.board(lab.CASES["healthy"]).spread
    assert (well.first_whole, well.half_life, well.bad, well.last_safe) == ("", None, 0, STEPS - 1)
    assert "half of what stays is bad: never" in str(well)


def test_every_outbreak_has_its_row():
    lines = lab.outbreaks().splitlines()
    assert [line.startswith(name) for line, name in zip(lines[1:], lab.OUTBREAKS, strict=True)]
    assert "fc_mu, step 1" in lines[2]  # BatchNorm


def test_a_learners_loop_is_counted_like_any_other(bench):
    torch.manual_seed(0)

    def mine(each, model, batch, optimizer):
        lab.quarantined(each, model, batch, optimizer)

    bench.turn("broken", repair=mine)
    assert lab.board(bench.settings, mine).spread == lab.board(lab.CASES["repaired"]).spread


def test_the_board_shows_nothing_that_comes_later():
    early = lab.board(replace(NAN, step=1.0, op=2.0))
    words = board_words(early)
    assert words.splitlines()[0].endswith("seen at step 1, input_layer.")
    assert words.splitlines()[-1] == (
        "step 1: counts 1 of 12240 NaN, 1 cell, input_layer 128 of 2048 NaN, 1 cell"
    )
    said = [item.text for item in board_scene(early).items if hasattr(item, "text")]
    assert "128 of 2048" in said
    assert "765 of 12240" not in said
    assert said.count("✓ a copy would save the run") == 1  # step 0 has ended, step 1 has not
    late = [item.text for item in board_scene(lab.board(NAN)).items if hasattr(item, "text")]
    assert late.count("✕ a copy is poisoned") == 2
    assert f"all {column(NAN)[AT['parameters']].size}" in late


def test_the_page_gets_a_square_for_every_moment():
    found = squares(lab.board(replace(NAN, step=1.0, op=2.0)))
    assert len(found) == STEPS * len(ROWS)
    by_set = {(it["set"]["step"], it["set"]["op"]): it for it in found}
    assert by_set[1, 2]["words"] == "step 1, input_layer: 128 of 2048 NaN, 1 cell"
    assert by_set[1, 3]["words"] == "step 1, fc_mu: not yet"
    assert by_set[0, 0]["words"] == "step 0, counts: all 12240 finite"
