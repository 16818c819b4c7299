"""What half precision loses: an eps, small gradients, small updates; and what keeps them."""

import math

import pytest
import torch

from labkit import check
from labkit.bench import Bench
from labkit.failures._formats import DTYPES, at_once, likelihood_error, running_sum, whole_numbers
from labkit.failures.half_precision import FORMS, SCALE, courses

HALF, BRAIN, SINGLE = DTYPES


@pytest.fixture
def bench():
    return Bench("half_precision")


def test_one_ordinary_step_in_float16_makes_every_weight_nan(bench):
    reading = bench.turn("broken")
    assert reading.verdict == "nan"
    assert (reading.culprit.phase, reading.culprit.op) == ("optimizer", "addcdiv_")
    assert all(map(math.isfinite, reading.report.losses[:1]))
    assert len(reading.report.harmed) == 12


@pytest.mark.parametrize(("gradient", "eps", "well"), [(1e-2, 1e-8, True), (1e-3, 1e-8, False)])
def test_adam_in_float16_divides_by_zero_from_a_gradient_of_a_thousandth(gradient, eps, well):
    weight = torch.nn.Parameter(torch.ones((), dtype=HALF))
    optimizer = torch.optim.Adam([weight], lr=0.01, eps=eps)
    weight.grad = torch.tensor(gradient, dtype=HALF)
    optimizer.step()
    assert bool(weight.isfinite()) == well


def test_a_larger_eps_is_another_optimizer(bench):
    assert bench.turn("broken", step="larger eps").verdict == "wrong"
    assert bench.turn("healthy", step="larger eps", power=3.0).verdict == "wrong"  # in float32 too


def test_bfloat16_keeps_the_range_and_loses_the_updates(bench):
    for rate, still in ((-3.0, 1), (-4.0, 10), (-5.0, 12)):
        reading = bench.turn("rounded", rate=rate)
        assert reading.verdict == "frozen"
        assert len(reading.report.harmed) == still
        assert bench.turn("rounded", rate=rate, step="autocast").verdict == "healthy"


def test_in_training_it_falls_behind():
    paths = courses(steps=40)
    fell = {name: path[0] - path[-1] for name, path in paths.items()}
    assert 0 < fell["pure"] < 0.6 * fell["autocast"]  # measured 5 and 12 nats


def test_small_gradients_are_zero_in_float16_and_a_scaled_loss_brings_them_back(bench):
    reading = bench.turn("underflow")
    assert reading.verdict == "dead"
    assert {f.name for f in reading.report.harmed} >= {"decoder.fc_r.weight"}
    assert bench.turn("underflow", step="scaled").verdict == "healthy"
    assert bench.turn("underflow", dtype="bfloat16").verdict == "healthy"  # float32's range


def test_a_mean_over_genes_is_small_enough_to_lose_some(bench):
    reading = bench.turn("underflow", power=3.0)
    assert reading.verdict == "healthy"  # 5 % of one parameter's entries
    assert bench.turn("underflow", power=6.0).report.harmed


def test_the_scale_is_a_power_of_two_that_changes_no_digit():
    assert math.log2(SCALE).is_integer()


def test_the_products_run_in_the_dtype_that_was_asked_for(bench):
    for dtype in ("float16", "bfloat16"):
        reading = bench.turn("repaired", dtype=dtype)
        made = {s.dtype for op in reading.report.ops if op.name == "addmm" for s in op.outputs}
        assert made == {dtype}
        assert reading.value == pytest.approx(reading.reference, rel=1e-4)


def test_what_the_formats_hold():
    assert [torch.tensor(1e-8, dtype=dtype).item() == 0 for dtype in DTYPES] == [True, False, False]
    assert [whole_numbers(dtype) for dtype in DTYPES] == [2048, 256, 16777216]
    assert [running_sum(dtype) for dtype in DTYPES] == [2048, 256, 5000]
    assert [at_once(dtype) for dtype in DTYPES] == [5000, 4992, 5000]
    errors = [likelihood_error(dtype) for dtype in DTYPES]
    assert min(errors[:2]) > 0.1 > 0.01 > errors[2]


def in_float32(model, optimizer, loss, dtype):
    optimizer.zero_grad()
    value = loss(model)
    value.backward()
    optimizer.step()
    return value


def scaled_by(scale, back=True):
    def step(model, optimizer, loss, dtype):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            value = loss(model)
        (value * scale).backward()
        for p in model.parameters():
            p.grad.div_(scale if back else 1.0)
        optimizer.step()
        return value

    return step


def scaled_and_pure(model, optimizer, loss, dtype):
    model.to(dtype)
    optimizer.zero_grad()
    value = loss(model)
    (value * SCALE).backward()
    for p in model.parameters():
        p.grad.div_(SCALE)
    optimizer.step()
    return value


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (FORMS["pure"], "Leave the weights in float32"),
        (FORMS["larger eps"], "Weights in float32, matrix products in half"),
        (FORMS["autocast"], "Multiply the loss by a power of two"),
        (in_float32, "nothing ran in the dtype that was asked for"),
        (scaled_by(2.0**16), "above 65504"),
        (scaled_by(SCALE, back=False), "before the step"),
        (scaled_and_pure, "Leave the weights in float32"),
    ],
)
def test_what_only_looks_like_a_repair_is_refused(bad, told):
    result = check("half_precision", bad)
    assert not result
    assert told in result.hint, result
