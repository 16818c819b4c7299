"""Where exploding_logvar breaks, what of the guide's claim holds, and what each guard does."""

import math

import pytest
import torch

from labkit.bench import Bench
from labkit.failures.exploding_logvar import FORMS, _prepared, loss, recoveries

LARGEST = {"float16": 11.09, "bfloat16": 88.72, "float32": 88.72, "float64": 709.78}


@pytest.fixture
def bench():
    return Bench("exploding_logvar")


def test_the_culprit_is_the_exp_of_the_kl(bench):
    culprit = bench.turn("broken").culprit
    assert (culprit.op, culprit.phase) == ("exp", "forward")
    assert culprit.function == "kl_standard_normal_guide"
    assert "logvar.exp()" in culprit.source


def test_the_guide_is_wrong_at_twenty(bench):
    reading = bench.turn(shift=20.0)
    assert math.isfinite(reading.value)
    assert reading.verdict not in ("inf", "nan")
    assert math.exp(20 / 2) == pytest.approx(22026, abs=1)


def test_an_overflow_of_the_kl_spares_the_decoder_and_fc_mu(bench):
    fates = {fate.name: fate.word for fate in bench.turn("broken").report.parameters}
    spared = {name for name in fates if name.startswith(("decoder.", "encoder.fc_mu."))}
    assert len(fates) == 12
    assert {fates[name] for name in spared} == {"ok"}
    assert not {fates[name] for name in fates.keys() - spared} & {"ok"}


def test_an_infinite_loss_may_harm_no_parameter(bench):
    reading = bench.turn(shift=86.0)
    assert reading.value == math.inf
    assert reading.verdict == "inf"
    assert reading.culprit.op == "mean"
    assert not reading.report.harmed


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_without_a_safe_step_every_weight_is_bad_within_two_steps(optimizer):
    model, cells = _prepared(90.0, "float32")
    step = optimizer(model.parameters(), lr=1e-3)
    bad = []
    for _ in range(3):
        step.zero_grad()
        loss(model, cells, FORMS["none"]).backward()
        step.step()
        bad.append(sum(not p.isfinite().all() for p in model.parameters()))
    assert bad == [4, 12, 12]


def test_the_sampler_overflows_only_far_beyond(bench):
    reading = bench.turn(shift=185.0)
    assert math.isnan(reading.value)
    assert bench.turn(shift=150.0).value == math.inf
    assert len(reading.report.harmed) == 12


def test_the_guides_clamp_is_finite_and_dead(bench):
    reading = bench.turn("broken", guard="clamp")
    assert math.isfinite(reading.value)
    assert reading.verdict == "dead"
    assert reading.culprit.place.startswith("guards.py")
    dead = {fate.name for fate in reading.report.parameters if fate.word == "zero"}
    assert dead == {"encoder.fc_logvar.weight", "encoder.fc_logvar.bias"}


@pytest.mark.parametrize(("dtype", "edge"), LARGEST.items())
def test_the_edge_is_the_log_of_the_largest_number(dtype, edge):
    assert math.log(torch.finfo(getattr(torch, dtype)).max) == pytest.approx(edge, abs=0.01)


def test_float64_moves_the_edge_and_removes_nothing(bench):
    assert math.isfinite(bench.turn("broken", dtype="float64").value)
    assert bench.turn("broken", dtype="bfloat16").verdict == "inf"


def test_in_half_precision_the_sum_overflows_inside_the_clamp(bench):
    reading = bench.turn(shift=15.0, dtype="float16", guard="straight-through")
    assert reading.verdict in ("inf", "nan"), "eight times exp(10) is beyond 65504"


def test_only_the_straight_through_cap_comes_back_from_far_out():
    paths = recoveries(shift=90.0, steps=120)
    assert set(paths) == set(FORMS)
    assert abs(paths["straight-through"][-1]) < 40
    assert min(paths["clamp"]) > 60
    assert len(set(paths["none"])) == 1, "every step is refused, so nothing moves"
