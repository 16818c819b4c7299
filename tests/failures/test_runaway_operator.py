"""Where a rollout runs away, which bounds hold it, and what a bound costs."""

import math

import pytest
import torch

from labkit import check
from labkit.bench import Bench
from labkit.failures.runaway_operator import (
    FORMS,
    MAP,
    RADIUS,
    chain,
    growth,
    learned,
    matrix,
    ways,
)
from labkit.models.operator import OPERATOR_OFF, OperatorModel
from labkit.models.spectral import NormBound, spectral_norm

GUIDE = 1.05
EXCESS = 1e-3  # a penalty of weight 10 settles that little above its bound on each basis operator


@pytest.fixture
def bench():
    return Bench("runaway_operator")


def test_every_basis_operator_obeys_the_guide_and_the_operator_does_not():
    model = learned()
    assert spectral_norm(model.basis.detach()).max() < GUIDE + EXCESS
    assert spectral_norm(matrix(model)) > 2


def test_the_gradient_grows_with_the_power_and_float64_grows_with_it(bench):
    narrow, wide = bench.turn("broken"), bench.turn("broken", dtype="float64")
    for reading in (narrow, wide):
        assert reading.verdict == "exploding"
        assert reading.culprit.place.startswith("operator.py")
        assert "states[-1]" in reading.culprit.source
    assert narrow.value == pytest.approx(wide.value, rel=1e-4), "it is growth, not rounding"
    assert narrow.value > 1e5


def test_the_first_step_is_well(bench):
    assert bench.turn("broken", steps=1.0).verdict == "healthy"


@pytest.mark.parametrize(
    ("bound", "operator", "verdict"),
    [
        ("each basis", "learned", "exploding"),
        ("each basis", "chain", "healthy"),
        ("radius", "learned", "healthy"),
        ("radius", "chain", "exploding"),
        ("svd", "learned", "healthy"),
        ("svd", "chain", "healthy"),
        ("svd", "identity", "nan"),
        ("norm", "learned", "healthy"),
        ("norm", "chain", "healthy"),
    ],
)
def test_what_each_bound_holds(bench, bound, operator, verdict):
    assert bench.turn("broken", bound=bound, operator=operator).verdict == verdict


def test_singular_vectors_have_no_gradient_at_the_start(bench):
    culprit = bench.turn(operator="identity", bound="svd").culprit
    assert culprit.op == "LinalgSvdBackward0"
    assert bench.turn(operator="identity", bound="norm").verdict == "healthy"


def test_a_contraction_takes_the_gradient_of_what_came_before(bench):
    reading = bench.turn("contracting")
    fates = {fate.name: fate.word for fate in reading.report.parameters}
    assert fates["offset"] == "vanishing"
    assert set(fates.values()) - {"vanishing"} == {"ok"}
    assert bench.turn("contracting", dtype="float16").verdict == "dead"


def test_half_precision_overflows_within_the_rollout(bench):
    assert bench.turn("broken", dtype="float16").verdict == "nan"
    assert bench.turn("repaired", dtype="float16").verdict == "healthy"


def test_the_guides_number_is_no_bound():
    lines = growth(1000)
    assert lines["norm 1.05"][-1] == pytest.approx(1000 * math.log10(1.05), rel=1e-6)
    assert 10 ** lines["norm 1.05"][-1] == pytest.approx(1.546e21, rel=1e-3)
    assert max(lines["chain, norm 1.2"]) > 2.5, "every eigenvalue is 0.9, the norm 1.2"
    assert lines["chain, norm 1.2"][-1] < -20
    assert max(lines["learned, norm 1"]) < 1e-6
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0]
    assert overflow(GUIDE * rotation) == pytest.approx(1828, abs=15)
    assert overflow(rotation) is None


def overflow(A, steps: int = 2000) -> int | None:
    """The first step of a real rollout whose state is not finite in float32."""
    model = OperatorModel(8, 1, 1, weights="linear")
    with torch.no_grad():
        model.basis.copy_(A)
        z0, one = torch.ones(1, 8) / math.sqrt(8), torch.ones(1, 1)
        model.response.zero_()
        states = model.rollout(z0, one, one, steps, OPERATOR_OFF)
    bad = (~states.isfinite()).flatten(1).any(1).nonzero()
    return int(bad[0]) if len(bad) else None


def test_the_chain_has_the_norm_that_is_asked_for():
    for norm in (0.5, 0.9, 1.2, 2.45):
        A = chain(norm)
        assert spectral_norm(A).item() == pytest.approx(norm, abs=1e-5)
        assert A.diagonal().unique().item() == pytest.approx(min(norm, 0.9))


def test_scaling_after_the_step_collapses_and_bounding_in_the_forward_pass_does_not():
    runs = ways()
    penalty, after, forward = runs.values()
    assert penalty[1][0] > GUIDE + 0.01, "a penalty is no constraint"
    assert max(after[1][0], forward[1][0]) < GUIDE + EXCESS
    assert after[1][-1] < 0.02 < 0.1 < forward[1][-1]
    assert forward[0] < 0.8 * after[0]


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (FORMS["each basis"], "does not hold its norm"),
        (FORMS["radius"], "does not hold its norm"),
        (FORMS["svd"], "divides by their difference"),
        (lambda alpha, basis: FORMS["mixed"](alpha.clamp(-1, 1), basis), "does not hold its norm"),
        (lambda alpha, basis: FORMS["mixed"](alpha, basis).clamp(-1, 1), "does not hold its norm"),
        (lambda alpha, basis: FORMS["mixed"](alpha.softmax(-1), basis), "as it went in"),
        (lambda alpha, basis: NormBound(0.5)(FORMS["mixed"](alpha, basis)), "as it went in"),
        (lambda alpha, basis: FORMS["mixed"](alpha, basis).tanh(), "as it went in"),
    ],
)
def test_what_only_looks_like_a_bound_is_told_why(mine, words):
    result = check("runaway_operator", mine)
    assert not result
    assert words in result.hint, result


def test_power_iteration_is_an_answer():
    def mine(alpha, basis):
        A = FORMS["mixed"](alpha, basis)
        v = torch.ones_like(A[..., :1])
        for _ in range(50):
            v = A.detach().mT @ (A.detach() @ v)
            v = v / v.norm(dim=-2, keepdim=True)
        return A / (A.detach() @ v).norm(dim=-2, keepdim=True).clamp(min=1)

    assert check("runaway_operator", mine)


def test_the_map_samples_where_all_singular_values_of_the_chain_are_equal(bench):
    small = [norm for norm in MAP["norm"] if norm <= RADIUS]
    assert len(small) == 2
    for norm in small:
        assert bench.turn("broken", operator="chain", bound="svd", norm=norm).verdict == "nan"


def test_the_offset_is_pushed_hard_and_not_the_hardest(bench):
    norms = {fate.name: fate.norm for fate in bench.turn("broken").report.parameters}
    assert min(norms, key=norms.get) == "offset"
    assert norms["offset"] > 1e7
