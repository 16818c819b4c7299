"""A cut on the only way, a cut on one of two, and an edit of shared memory."""

import pytest
import torch

from labkit import check
from labkit.bench import Bench
from labkit.failures._batch import batch
from labkit.failures.detach import FORMS, courses, loss, slopes
from labkit.training.train import trained_vae

DIFFERENCE = 1e-5  # of a central difference in float64; measured 1e-8


@pytest.fixture
def bench():
    return Bench("detach")


def wrong(reading) -> set[str]:
    return {fate.name for fate in reading.report.parameters if fate.word == "wrong"}


def test_on_the_only_way_nothing_arrives(bench):
    reading = bench.turn("sole")
    assert (reading.verdict, reading.culprit.op) == ("severed", "detach")
    assert len(reading.report.harmed) == 6


def test_on_one_of_two_ways_a_wrong_gradient_arrives(bench):
    reading = bench.turn("broken")
    assert (reading.verdict, reading.culprit.op) == ("wrong", "detach")
    assert reading.culprit.function == "noise_cut"
    layers = {"encoder.input_layer", "encoder.fc_logvar"}
    assert {name.rpartition(".")[0] for name in wrong(reading)} == layers
    assert reading.value == bench.turn("repaired").value


def test_what_is_left_is_the_gradient_of_the_kl():
    said = slopes()["noise"][0]
    model, cells = trained_vae().double(), batch(torch.float64)
    logvar = model.encoder(cells.counts, cells.tissue)[1]
    assert said == pytest.approx(float((0.5 * logvar.expm1()).sum(-1).mean().detach()), abs=1e-6)


def test_only_a_finite_difference_tells_the_forms_apart():
    measured = slopes()
    true = measured["whole"][0]
    for form, (said, difference) in measured.items():
        assert difference == pytest.approx(true, abs=DIFFERENCE)
        assert (said == pytest.approx(true, abs=DIFFERENCE)) == (form == "whole")
    assert abs(true) < 0.5  # the model is trained; measured 0.063
    assert measured["noise"][0] < -2  # measured -3.427


def test_cut_training_pulls_the_spread_to_the_priors():
    paths = courses()
    assert abs(paths["noise"][-1]) < 0.1
    assert paths["whole"][-1] < -2.5


def test_without_the_second_way_the_cut_is_severed(bench):
    reading = bench.turn("broken", kl=0.0)
    assert reading.verdict == "severed"
    none = {fate.name for fate in reading.report.parameters if fate.word == "none"}
    assert none == {"encoder.fc_logvar.weight", "encoder.fc_logvar.bias"}


def test_where_the_kl_is_strong_the_lost_part_does_not_count(bench):
    assert bench.turn("broken", shift=-4.0).verdict == "healthy"
    assert bench.turn("broken", shift=-2.0).verdict == "wrong"


def test_an_edited_copy_is_refused_by_pytorch_and_edited_data_is_not(bench):
    copy = bench.turn("broken", sample="copy")
    assert (copy.verdict, copy.culprit.op) == ("severed", "clamp_")
    model = trained_vae()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss(model, batch(), FORMS["copy"]).backward()
    data = bench.turn("edited")
    assert (data.verdict, data.culprit.op) == ("wrong", "clamp_")
    assert wrong(data)
    assert data.value == bench.turn("healthy").value


def test_a_clone_may_be_edited():
    def cloned(mu, logvar, noise):
        std = torch.exp(0.5 * logvar)
        std.detach().clone().clamp_(max=0.1)
        return mu + std * noise

    assert check("detach", cloned)


@pytest.mark.parametrize("form", ["noise", "state", "data"])
def test_every_silent_form_is_refused_with_its_reason(form):
    result = check("detach", FORMS[form])
    assert not result
    assert "not the slope of the loss" in result.hint
