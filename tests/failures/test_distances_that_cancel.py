"""Where a distance loses its digits, which cures hold, and how far float64 carries."""

import pytest
import torch

from labkit import check
from labkit.bench import Bench
from labkit.failures.distances_that_cancel import (
    FORMS,
    Settings,
    batches,
    energies,
    errors,
    neighbours,
)

EXACT = "donot_use_mm_for_euclid_dist"
ROUNDING = -6  # log10 of what float32 may lose in a distance that is computed well
STORED = 5.0  # log10 of the offset from which float32 cells have no digits left for their distance


@pytest.fixture
def bench():
    return Bench("distances_that_cancel")


def test_the_gradient_is_wrong_before_the_loss_is(bench):
    reading = bench.turn("broken")
    assert reading.verdict == "wrong"
    assert reading.value == pytest.approx(reading.reference, rel=1e-2)
    assert "gradient is far" in reading.culprit.remark
    assert (reading.culprit.op, reading.culprit.function) == ("sub", "expansion")


def test_further_out_distances_are_zero_and_their_root_has_no_slope(bench):
    reading = bench.turn("lost")
    assert reading.verdict == "nan"
    assert reading.culprit.op == "SqrtBackward0"
    assert reading.value < 0.8 * reading.reference
    assert neighbours("expansion", 3.0)[1] > 0.05
    assert neighbours("expansion", 3.0)[0] < 0.6, "most cells get a wrong neighbour"


@pytest.mark.parametrize(
    ("distance", "moved", "verdict"),
    [
        ("expansion", "all", "nan"),
        ("cdist", "all", "wrong"),
        ("centred", "all", "healthy"),
        ("centred", "half", "nan"),
        ("float64", "half", "healthy"),
        ("subtract", "half", "healthy"),
    ],
)
def test_what_each_way_does_at_a_thousand(bench, distance, moved, verdict):
    assert bench.turn("healthy", offset=3.0, distance=distance, moved=moved).verdict == verdict


def test_an_expansion_loses_two_digits_for_each_power_of_ten():
    lost = errors("expansion", offsets=range(1, 4))
    assert lost[0] < -4 < lost[1] < -1.5 < lost[2]
    assert max(errors("subtract", offsets=range(3))) < ROUNDING + 0.1


def test_the_library_switches_at_26_rows():
    x, y = batches(Settings(offset=3.0))
    true = FORMS["subtract"](x, y)
    few, many = torch.cdist(x[:25], y[:25]), torch.cdist(x[:26], y[:26])
    torch.testing.assert_close(few, true[:25, :25], rtol=1e-6, atol=0)
    assert ((many - true[:26, :26]).abs() / true[:26, :26]).max() > 0.1
    exact = torch.cdist(x, y, compute_mode=EXACT)
    torch.testing.assert_close(exact, true, rtol=1e-6, atol=0)


def test_what_was_rounded_when_it_was_stored_is_lost_to_every_form(bench):
    stored = bench.turn("stored")
    assert stored.verdict == "wrong"
    for distance in FORMS:
        reading = bench.turn("stored", distance=distance, offset=STORED + 1)
        assert reading.verdict != "healthy"
    assert bench.turn("stored", dtype="float64").verdict == "healthy"


def test_float64_moves_the_edge_of_the_expansion_and_not_that_of_a_subtraction(bench):
    assert bench.turn("healthy", offset=6.0, distance="expansion", dtype="float64").verdict == (
        "healthy"
    )
    assert bench.turn(offset=7.0).verdict != "healthy"
    assert bench.turn(distance="float64").verdict != "healthy"
    assert bench.turn(distance="subtract").verdict == "healthy"


def test_the_labs_energy_distance_does_not_see_the_origin():
    near, far = energies(0.0), energies(4.0)
    for found in (near, far):
        assert found["labkit's"] == pytest.approx(found["float64"], rel=1e-4)
    assert far["the guide's"] != pytest.approx(far["float64"], rel=0.5)


def mixed_mean(x, y):
    centre = torch.cat([x, y]).mean(0)
    return torch.cdist(x - centre, y - centre)


def standardised(x, y):
    return FORMS["expansion"]((x - y.mean(0)) / y.std(0), (y - y.mean(0)) / y.std(0))


def floor(x, y):
    squares = x.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * x @ y.t()
    return squares.clamp(min=1e-6).sqrt()


@pytest.mark.parametrize("mine", [*list(FORMS.values())[:4], mixed_mean, floor])
def test_what_only_moves_the_edge_is_told_why(mine):
    result = check("distances_that_cancel", mine)
    assert not result
    assert "before anything is squared" in result.hint or "as it went in" in result.hint


def test_another_distance_is_told_that_it_is_another():
    assert "Meant is the Euclidean one" in check("distances_that_cancel", standardised).hint


@pytest.mark.parametrize(
    "mine",
    [
        lambda x, y: (x[:, None] - y).norm(dim=-1),
        lambda x, y: torch.cdist(x, y, compute_mode=EXACT),
    ],
)
def test_other_ways_to_subtract_first_are_answers(mine):
    assert check("distances_that_cancel", mine)


def test_the_offset_is_that_of_each_coordinate():
    x, _ = batches(Settings(offset=3.0))
    assert float(x.norm(dim=1).mean()) == pytest.approx(8**0.5 * 1e3, rel=0.01)
