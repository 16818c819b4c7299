"""Where a masked NaN comes back, which masks hold, and which comparisons hide it."""

import math

import pytest
import torch

from labkit import check
from labkit.bench import Bench
from labkit.failures.masked_but_not_safe import FORMS, _prepared, descents, loss, passes_through
from labkit.models.likelihood import nb_log_likelihood_from_logs as log_p

CLOSE = 1e-6  # relative; two float32 sums of 24480 terms in another order


@pytest.fixture
def bench():
    return Bench("masked_but_not_safe")


def test_the_loss_is_right_and_every_gradient_is_nan(bench):
    reading = bench.turn("broken")
    assert reading.value == pytest.approx(reading.reference, rel=CLOSE)
    assert {fate.word for fate in reading.report.parameters} == {"nan"}
    assert len(reading.report.parameters) == 12


def test_the_story_is_born_masked_and_born_again(bench):
    report = bench.turn("broken").report
    events = [link.event for link in report.chain]
    assert events[:3] == ["born", "masked", "reborn"]
    assert report.culprit.op == "nb_log_likelihood_from_logs"
    assert "where at masked_but_not_safe.py" in report.chain[1].text


@pytest.mark.parametrize("marker", ["-1", "NaN"])
@pytest.mark.parametrize("mask", ["times mask", "where", "nan_to_num"])
def test_no_mask_behind_the_likelihood_saves_it(bench, mask, marker):
    assert bench.turn("broken", mask=mask, marker=marker).verdict == "nan"


def test_one_missing_entry_is_enough():
    model, cells, x, seen = _prepared(Bench("masked_but_not_safe").settings, "float32")
    x, seen = x.clone(), seen.clone()
    x[3, 5], seen[3, 5] = torch.nan, 0
    value = loss(model, cells, x, seen, FORMS["where"])
    value.backward()
    assert value.isfinite()
    assert all(p.grad.isnan().any() for p in model.parameters())


def test_a_marker_of_zero_is_harmless_to_a_mask_and_not_to_a_plain_mean(bench):
    assert bench.turn("broken", marker="0").verdict == "healthy"
    assert bench.turn("broken", marker="0", mask="nan_to_num").verdict == "wrong"


def test_an_empty_cell_needs_a_floor(bench):
    assert math.isnan(bench.turn("broken", marker="0", empty=1.0).value)
    assert bench.turn("repaired", empty=1.0).verdict == "healthy"


def test_the_repair_does_not_see_what_stands_in_the_gaps(bench):
    values = {bench.turn("repaired", marker=marker).value for marker in ("-1", "NaN", "0")}
    assert len(values) == 1


def test_nan_to_num_reports_a_perfect_loss_for_a_dead_model():
    losses = descents(3)
    assert losses["nan_to_num"][0] == pytest.approx(losses["where"][0], rel=CLOSE)
    assert losses["nan_to_num"][1:] == [0.0, 0.0]
    assert math.isnan(losses["where"][1])
    assert losses["before and after"][-1] < losses["before and after"][0]


def test_what_hides_a_nan_and_what_hands_it_on():
    results = passes_through()
    assert results["t.max(), t.min()"] == "nan, nan"
    assert results["t.relu()"] == "[1.0, nan, 3.0]"
    assert results["torch.where(t > 0, t, 0)"] == "[1.0, 0.0, 3.0]"
    assert results["nan > 1e3, nan < 1e3"] == "False, False"
    assert results["min(0.5, nan), min(nan, 0.5)"] == "0.5, nan"
    assert results["t.argmax()"] == "1"


@pytest.mark.parametrize(("f", "slope"), [(torch.relu, 1.0), (lambda t: t.clamp(0, 2), 0.0)])
def test_relu_and_clamp_hand_a_nan_on_and_clamp_stops_the_gradient(f, slope):
    t = torch.tensor([torch.nan], requires_grad=True)
    y = f(t)
    (gradient,) = torch.autograd.grad(y.sum(), t)
    assert y.isnan().all()
    assert gradient.item() == slope


def indexed(x, log_mu, log_r, seen):
    return -log_p(x, log_mu, log_r)[seen > 0].mean()


def no_floor(x, log_mu, log_r, seen):
    p = torch.where(seen > 0, log_p(torch.where(seen > 0, x, 0.0), log_mu, log_r), 0.0)
    return -(p.sum(-1) / seen.sum(-1)).mean()


def over_all_genes(x, log_mu, log_r, seen):
    return -torch.where(seen > 0, log_p(torch.where(seen > 0, x, 0.0), log_mu, log_r), 0.0).mean()


def only_before(x, log_mu, log_r, seen):
    return -(log_p(torch.where(seen > 0, x, 0.0), log_mu, log_r).sum(-1) / seen.sum(-1)).mean()


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (FORMS["times mask"], "Choose it away in x"),
        (FORMS["where"], "Choose it away in x"),
        (FORMS["nan_to_num"], "Choose it away in x"),
        (indexed, "Choose it away in x"),
        (FORMS["zeros"], "Divide by what was seen"),
        (over_all_genes, "Divide by what was seen"),
        (only_before, "Divide by what was seen"),
        (no_floor, "empty"),
    ],
)
def test_what_only_looks_like_a_masked_mean_is_told_why(mine, words):
    result = check("masked_but_not_safe", mine)
    assert not result
    assert words in str(result), result
