"""What a running sum keeps, what strips it of its graph, and where it runs out of digits."""

import pytest
import torch

from labkit import check
from labkit.bench import Bench
from labkit.failures.accumulation import (
    FORMS,
    cell_losses,
    chunked_distance,
    history,
    load_pbmc,
    megabytes_held,
    running_sum,
    trained_vae,
)

ROUNDING = 1e-6  # of a gradient in float32, relative; measured 1e-7 and less


@pytest.fixture
def bench():
    return Bench("accumulation")


def test_the_guide_is_wrong_a_running_sum_keeps_every_term(bench):
    for cells in (2, 8, 64, 512):
        reading = bench.turn("guide", cells=cells)
        assert reading.verdict == "healthy"
        assert not reading.report.harmed


def test_each_addition_holds_the_one_before_it():
    assert history("running") == ["DivBackward0"] + 8 * ["AddBackward0"]
    assert history("data") == ["DivBackward0", "AddBackward0"]
    assert history("list") == ["MeanBackward0", "torch::autograd::AccumulateGrad"]


def test_an_addition_in_place_loses_nothing_either():
    def gradient(join):
        model, cells = trained_vae(), load_pbmc().train[:8]
        join(*cell_losses(model, cells).unbind()).backward()
        return model.decoder.fc_mu.weight.grad

    def in_place(*terms):
        total = torch.zeros(())
        for term in terms:
            total += term
        return total / len(terms)

    off = (gradient(in_place) - gradient(FORMS["running"])).abs().max()
    assert off <= ROUNDING * gradient(FORMS["running"]).abs().max()


def test_the_guides_start_value_refuses_an_addition_in_place():
    total = torch.tensor(0.0, requires_grad=True)
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        total += torch.ones(())


def test_through_data_only_the_last_term_teaches(bench):
    reading = bench.turn("broken")
    assert reading.verdict == "wrong"
    assert reading.culprit.source == "total = total.data + term"
    assert {fate.word for fate in reading.report.parameters} == {"wrong"}
    model, cells = trained_vae(), load_pbmc().train[:8]
    terms = cell_losses(model, cells).unbind()
    weight = model.decoder.fc_mu.weight
    mine = torch.autograd.grad(FORMS["data"](*terms), weight, retain_graph=True)[0]
    last = torch.autograd.grad(terms[-1] / 8, weight)[0]
    assert (mine - last).abs().max() <= ROUNDING * last.abs().max()


def test_its_value_gives_nothing_away(bench):
    assert bench.turn("broken").value == bench.turn("guide").value


def test_a_list_of_numbers_is_silent_and_severed(bench):
    reading = bench.turn("broken", total="list")
    assert reading.verdict == "severed"
    assert reading.culprit.op == "item"
    assert len(reading.report.harmed) == 12
    assert reading.report.error == ""


def test_in_bfloat16_the_total_stands_still_and_the_gradient_is_right(bench):
    reading = bench.turn("stalled")
    assert reading.verdict == "wrong"
    assert (reading.culprit.op, reading.culprit.function) == ("add", "running")
    assert "gave 262144" in reading.culprit.remark
    assert reading.value == 512.0
    assert not reading.report.harmed
    assert bench.turn("stalled", total="stacked").verdict == "healthy"


def test_in_float16_a_sum_is_infinite_and_a_mean_is_not(bench):
    verdicts = {
        form: bench.turn("healthy", dtype="float16", cells=128, total=form).verdict
        for form in ("running", "stacked", "mean")
    }
    assert verdicts == {"running": "inf", "stacked": "inf", "mean": "healthy"}


def test_a_long_chain_of_infinities_is_followed_to_its_start(bench):
    reading = bench.turn("healthy", dtype="float16", cells=512, total="running")
    assert (reading.verdict, reading.culprit.op) == ("inf", "add")
    assert reading.culprit.inputs[0].bad == 0


def test_where_counters_and_weights_stop():
    assert running_sum(0, 1, 5000) == {"bfloat16": 256, "float16": 2048, "float32": 5000}
    assert running_sum(1, -1e-3, 1000) == {"bfloat16": 1, "float16": 0.0222, "float32": 0}


def test_the_chunked_distance_of_the_guide_never_lost_a_row():
    for form in ("running", "stacked"):
        rows, off = chunked_distance(form)
        assert rows == 96
        assert off <= ROUNDING
    assert chunked_distance("data")[0] == 16


def test_one_backward_a_chunk_holds_an_eighth():
    held = megabytes_held(chunks=8)
    assert held["one backward at the end"] == pytest.approx(
        8 * held["one backward a chunk"], rel=0.05
    )


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("running", "drops the digits"),
        ("stacked", "leaves the range of the dtype"),
        ("data", "must reach the total with its graph"),
        ("list", "cuts the graph"),
    ],
)
def test_every_other_form_is_refused_with_its_reason(form, words):
    result = check("accumulation", FORMS[form])
    assert not result
    assert words in result.hint
