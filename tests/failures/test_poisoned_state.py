"""What remembers a bad step after it was undone, and what has to be put back."""

import math
from copy import deepcopy

import pytest
import torch

from labkit import check
from labkit.bench import Bench
from labkit.failures._aftermath import accumulated, scaler, skipping, strides
from labkit.failures._bad_batch import evaluate, prepared, train
from labkit.failures.poisoned_state import FORMS, parameters, whole

FROZEN_FROM = math.sqrt(torch.finfo(torch.float32).max / 1e-3)  # 5.83e20: (1 - beta2) g² overflows


@pytest.fixture
def bench():
    return Bench("poisoned_state")


def test_restored_weights_are_nan_again_after_one_good_step(bench):
    for optimizer in ("Adam", "momentum"):
        for form in ("parameters", "model"):
            reading = bench.turn("broken", optimizer=optimizer, rescue=form)
            assert reading.verdict == "nan"
            assert "state" in str(reading.culprit)
            assert len(reading.report.harmed) == 14


def test_a_finite_giant_leaves_adam_no_step(bench):
    reading = bench.turn("frozen")
    assert reading.verdict == "frozen"
    still = {fate.name.partition(".")[0] for fate in reading.report.harmed}
    assert still == {"encoder", "norm"}  # the decoder learns on
    assert math.isfinite(reading.value)


def test_a_count_of_a_million_is_enough(bench):
    assert bench.turn("frozen", power=4.0).verdict != "frozen"
    assert bench.turn("frozen", power=6.0).verdict == "frozen"


def test_farther_out_the_second_moment_itself_is_infinite(bench):
    reading = bench.turn("frozen", power=25.0)
    assert (reading.verdict, reading.culprit.op) == ("inf", "addcmul_")
    assert math.isfinite(reading.value)  # parameters, loss and gradients look well


@pytest.mark.parametrize(("size", "frozen"), [(0.99 * FROZEN_FROM, False), (FROZEN_FROM, True)])
def test_from_which_gradient_on_adam_is_frozen_for_ever(size, frozen):
    weight = torch.nn.Parameter(torch.ones(()))
    optimizer = torch.optim.Adam([weight], lr=0.1)
    weight.grad = torch.tensor(size)
    optimizer.step()
    assert optimizer.state[weight]["exp_avg_sq"].isinf() == frozen
    before = weight.item()
    for _ in range(3):
        weight.grad = torch.ones(())
        optimizer.step()
    assert (weight.item() == before) == frozen


def test_a_skipped_batch_leaves_its_trace_in_batch_norm_and_only_eval_shows_it(bench):
    reading = bench.turn("eval")
    assert (reading.verdict, reading.culprit.op) == ("nan", "native_batch_norm")
    assert not reading.report.harmed
    assert math.isnan(reading.value)
    assert bench.turn("eval", rescue="model").verdict == "healthy"


def test_a_state_dict_is_no_copy(bench):
    same = [bench.turn("broken", rescue=form) for form in ("nothing", "aliased")]
    assert str(same[0]) == str(same[1])


def test_a_loaded_state_is_no_copy_either(bench):
    assert bench.turn("again", times=1).verdict == "healthy"
    assert bench.turn("again").verdict == "nan"
    assert bench.turn("again", rescue="whole").verdict == "healthy"


def test_a_whole_rescue_has_the_bits_of_a_run_in_which_nothing_happened(bench):
    for optimizer in ("Adam", "momentum"):
        model, kept = prepared(optimizer)
        train(model, kept, 0)
        train(model, kept, 3)
        for power in (10.0, 40.0):
            rescued = bench.turn("repaired", optimizer=optimizer, power=power, times=3)
            assert rescued.value == evaluate(model)


def test_with_all_put_back_the_steps_keep_their_length():
    lengths = {name: strides(FORMS[name], steps=40)[-1] for name in ("model", "whole")}
    assert lengths["whole"] > lengths["model"] + 0.5


def test_a_run_that_only_skips_makes_six_updates_and_no_error():
    assert skipping(20) == {"skip": (6, 14, False), "labkit.training.Run": (19, 1, True)}


def test_a_scale_that_reaches_zero_kills_at_the_next_good_step():
    scales, weight = scaler()
    assert scales[:2] == [65536.0, 64.0]
    assert scales[-1] == 0.0
    assert math.isnan(weight)
    assert scaler(100)[1] == pytest.approx(0.9)  # float32


def test_one_bad_micro_batch_takes_the_three_good_ones_with_it():
    told = accumulated()
    assert told["added up"] == "0 of 14 gradients finite, from 4 of 4"
    assert told["checked before they are added"] == "14 of 14 gradients finite, from 3 of 4"


def cleans(model, optimizer):
    def restore():
        for p in model.parameters():
            p.data.nan_to_num_()

    return restore


def forgets_the_optimizer(model, optimizer):
    back = FORMS["model"](model, optimizer)

    def restore():
        back()
        optimizer.state.clear()

    return restore


def no_buffers(model, optimizer):
    back, kept = parameters(model, optimizer), deepcopy(optimizer.state_dict())

    def restore():
        back()
        optimizer.load_state_dict(deepcopy(kept))

    return restore


def restores_at_once(model, optimizer):
    whole(model, optimizer)()
    return lambda: None


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (FORMS["nothing"], "must be put back"),
        (FORMS["aliased"], "must be put back"),
        (FORMS["parameters"], "must be put back"),
        (FORMS["model"], "must be put back"),
        (FORMS["once"], "Hand it a copy"),
        (cleans, "must be put back"),
        (forgets_the_optimizer, "not where it would be"),
        (no_buffers, "must be put back"),
        (restores_at_once, "must be put back"),
    ],
)
def test_what_only_looks_like_a_rescue_is_refused(bad, told):
    result = check("poisoned_state", bad)
    assert not result
    assert told in result.hint, result


@pytest.mark.parametrize(
    ("power", "verdict"), [(4.0, "wrong"), (5.0, "frozen"), (22.0, "frozen"), (23.0, "inf")]
)
def test_where_the_memory_of_a_giant_freezes_and_where_it_overflows(bench, power, verdict):
    assert bench.turn("healthy", rescue="model", power=power).verdict == verdict
