"""What each of the guide's layers catches, hides and kills, and what refuses in time."""

import math

import pytest
import torch

from labkit import check
from labkit.bench import Bench
from labkit.cells.data import validate_counts
from labkit.failures._layers import CHECKS, FAULTS, _rings, one_step, range_audit
from labkit.failures.defence_in_depth import ENTRIES, FORMS, audit
from labkit.models.guards import REPAIRED, straight_through

ROUNDING = 1e-6  # of the loss, relative: eps of 1e-8 on numbers near 1, float32


@pytest.fixture
def bench():
    return Bench("defence_in_depth")


def test_the_first_layer_kills_a_gradient_and_says_nothing(bench):
    reading = bench.turn("broken")
    assert (reading.verdict, reading.culprit.op) == ("dead", "ClampBackward1")
    assert {f.name.rpartition(".")[0] for f in reading.report.harmed} == {"encoder.fc_logvar"}
    assert math.isfinite(reading.value)


@pytest.mark.parametrize("entry", ["-0.5", "0.37"])
def test_the_second_layer_edits_and_does_not_validate(bench, entry):
    reading = bench.turn("edited", entry=entry)
    assert reading.verdict == "wrong"
    assert reading.value == pytest.approx(reading.reference, rel=1e-5)  # no number gives it away


@pytest.mark.parametrize("form", ["off", "guide", "cover"])
@pytest.mark.parametrize("entry", ["NaN", "Inf"])
def test_a_nan_passes_every_clamp_and_a_cover_as_well(bench, form, entry):
    reading = bench.turn("passed", guards=form, entry=entry)
    assert reading.verdict == "nan"
    assert reading.culprit.name == "x"


@pytest.mark.parametrize("entry", [name for name in ENTRIES if name != "none"])
def test_what_is_no_count_is_refused_by_name(bench, entry):
    reading = bench.turn("healthy", entry=entry)
    assert reading.note.startswith("refused: counts, check")
    assert "cell 3, gene 5" in reading.note
    assert not reading.report.harmed


def test_which_alarm_rings():
    heard = {name: _rings(*fault) for name, fault in FAULTS.items()}
    rings = {name: [k for k, r in zip(CHECKS, row, strict=True) if r == "rings"]
             for name, row in heard.items()}  # fmt: skip
    assert rings == {
        "none": [],
        "a count of NaN": ["data are counts", "loss (guide)", "gradients finite"],
        "a count of -0.5": ["data are counts"],
        "a count of 0.37": ["data are counts"],
        "log-variance - 15": ["gradients alive"],
        "a distance in the loss": ["gradients finite"],
    }


def test_a_check_of_the_loss_lets_nan_into_the_weights():
    assert one_step() == {"check of the loss": (True, 8), "safe_step": (False, 12)}
    assert one_step(distance=False)["check of the loss"] == (True, 12)


def test_the_audit_names_what_each_guard_killed():
    killed = {report.guard: report.killed for report in audit(-15.0)}
    assert killed["sample_logvar"] == killed["kl_logvar"] == 512
    assert sum(killed.values()) == 1024
    assert sum(report.killed for report in audit(-15.0, guards=REPAIRED)) == 0


def test_what_the_guards_cost_a_healthy_run():
    for report in audit():
        assert abs(report.loss_change) <= ROUNDING * report.loss_with
        assert report.killed == 0
    altered = {r.guard: r.altered / r.elements for r in audit()}
    assert sum(share > 0 for share in altered.values()) == 2 == len(altered) - 4
    assert (
        altered["logs"] > 0.2
    )  # measured 41 %: eps is added everywhere, and seen where mu is small


def test_the_guides_range_of_log_r_is_too_narrow_for_real_cells():
    guide, wide = range_audit(-5.0, 5.0), range_audit(-8.0, 12.0)
    assert guide.killed > 200 > 50 > wide.killed  # measured 749 and 18
    assert guide.loss_change > 0.005  # nats per cell; measured 0.028
    assert abs(wide.loss_change) < 1e-3


def clamps_once(value, point):
    if point == "counts":
        return validate_counts(value)
    return value.clamp(-10.0, 10.0) if point == "logvar" else value


def edits(value, point):
    if point == "counts":
        return value.round().clamp(min=0.0).nan_to_num()
    return straight_through(value) if point == "logvar" else value


def only_finite(value, point):
    if point == "counts" and not value.isfinite().all():
        raise ValueError("counts are not finite")
    return straight_through(value) if point == "logvar" else value


def good(value, point):
    if point == "counts":
        return validate_counts(value)
    if point == "logvar":
        return straight_through(value)
    return straight_through(value, -8.0, 12.0) if point == "log_r" else value


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (FORMS["guide"], "flat outside its range. Cap it once"),
        (FORMS["cover"], "flat outside its range. Cap it once"),
        (FORMS["off"], "raise a ValueError"),
        (clamps_once, "flat outside its range. Cap it once"),
        (edits, "raise a ValueError"),
        (only_finite, "raise a ValueError"),
        (lambda value, point: torch.nan_to_num(value), "raise a ValueError"),
    ],
)
def test_what_only_looks_like_a_defence_is_refused(bad, told):
    result = check("defence_in_depth", bad)
    assert not result
    assert told in result.hint, result


def test_another_good_answer_is_accepted():
    assert check("defence_in_depth", good)
