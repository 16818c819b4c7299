"""Where distance_at_zero is born, what the guide's clamp does not save, and what eps costs."""

import math

import pytest
import torch

from labkit import check
from labkit.bench import Bench
from labkit.failures.distance_at_zero import FORMS, clouds, descents, energy, in_use
from labkit.models.energy import energy_distance

CELLS = 24
CLOSE = 1e-5  # relative; two float32 sums of 576 lengths in another order stay near 1e-6


@pytest.fixture
def bench():
    return Bench("distance_at_zero")


def test_the_loss_is_true_and_every_gradient_is_nan(bench):
    reading = bench.turn("broken")
    assert reading.value == pytest.approx(reading.reference, rel=CLOSE)
    assert {fate.word for fate in reading.report.parameters} == {"nan"}
    culprit = reading.culprit
    assert (culprit.op, culprit.phase, culprit.function) == ("SqrtBackward0", "backward", "root")
    assert f"{CELLS} of {CELLS**2} entries of its input were zero" in culprit.remark


@pytest.mark.parametrize("length", ["clamp", "where"])
def test_neither_the_guides_clamp_nor_a_mask_saves_it(bench, length):
    reading = bench.turn("broken", length=length)
    assert math.isfinite(reading.value)
    assert reading.verdict == "nan"
    assert len(reading.report.harmed) == 2


def test_a_clamp_at_its_edge_passes_the_gradient_here():
    square = torch.tensor([-1.0, 0.0, 1e-30], requires_grad=True)
    (grad,) = torch.autograd.grad(square.clamp(min=0).sqrt().sum(), square)
    assert grad[0] == 0
    assert grad[1] in (0, math.inf), "inf up to torch 2.13; 0 where the edge counts as outside"
    assert grad[2] == pytest.approx(5e14, rel=1e-6)


def test_two_cells_that_float32_cannot_tell_apart_are_enough(bench):
    assert bench.turn(gap=-7.5).verdict == "healthy"
    twins = bench.turn(gap=-8.0)
    assert twins.verdict == "nan"
    assert "1 of 576" in twins.culprit.remark
    assert bench.turn(gap=-8.0, dtype="float64").verdict == "healthy"


@pytest.mark.parametrize(
    ("scale", "verdict"), [(-1.0, "healthy"), (-2.0, "wrong"), (-6.0, "wrong")]
)
def test_eps_has_the_unit_of_a_squared_distance(bench, scale, verdict):
    assert bench.turn("broken", length="eps", scale=scale).verdict == verdict
    assert bench.turn("broken", length="double where", scale=scale).verdict == "healthy"


def test_eps_lengthens_a_zero_by_its_root():
    assert FORMS["eps"](torch.zeros(1, 8)).item() == pytest.approx(1e-4, rel=1e-6)


def test_a_mask_hides_the_nan_in_the_loss_too():
    losses = descents(steps=6)
    assert math.isnan(losses["root"][1])
    assert math.isnan(losses["clamp"][1])
    assert all(math.isfinite(loss) for loss in losses["where"])
    assert losses["where"][-1] < 0 < losses["double where"][-1] < losses["double where"][0]


@pytest.mark.parametrize("length", FORMS)
def test_every_form_has_the_value_of_the_library(length):
    x, y = (z.double() for z in clouds())
    ours = energy(x, y, FORMS[length]).item()
    assert ours == pytest.approx(energy_distance(x, y, biased=True).item(), rel=1e-5)


@pytest.mark.parametrize("length", ["vector_norm", "double where"])
def test_the_gradient_at_zero_is_zero_and_elsewhere_a_unit(length):
    gap = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    (grad,) = torch.autograd.grad(FORMS[length](gap).sum(), gap)
    torch.testing.assert_close(grad, torch.tensor([[0.0, 0.0], [0.6, 0.8]]))


def test_only_the_guides_whole_distance_is_nan():
    words = [str(reading.verdict) for reading in in_use().values()]
    assert words == ["nan", "healthy", "healthy"]


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (FORMS["eps"], "has a unit"),
        (lambda gap: (gap.square().sum(-1) + 1e-12).sqrt(), "has a unit"),
        (lambda gap: torch.nan_to_num(gap.square().sum(-1).sqrt()), "too late"),
        (lambda gap: gap.square().sum(-1).sqrt().clamp(min=1e-6), "too late"),
        (lambda gap: (gap + 1e-8).square().sum(-1).sqrt(), "has a unit"),
        (lambda gap: gap.abs().sum(-1), "far from float64"),
    ],
)
def test_what_only_looks_like_a_repair_is_told_why(mine, words):
    assert words in check("distance_at_zero", mine).hint


def test_a_norm_of_the_library_is_an_answer():
    assert check("distance_at_zero", FORMS["vector_norm"])
