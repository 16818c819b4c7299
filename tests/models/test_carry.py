"""Populations, their distance and its interval; what a model is compared with."""

from math import erf, exp, pi, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from labkit.cells.simulate import simulate
from labkit.models.operator import OPERATOR_OFF, OperatorModel
from labkit.training.carry import Move, carry, interval, moves_by_tissue, resampled, weighted_energy

ONE = torch.ones(1)
ROUNDING = 1e-10  # float64, sums of some thousand distances


@pytest.fixture(scope="module")
def simulated():
    return simulate(n_cells=400, n_genes=5, n_tissues=3, seed=1)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_moves_are_of_one_tissue_and_split_by_what_is_held_out(simulated):
    cells, truth = simulated
    cells = cells[torch.arange(len(cells))]
    z = torch.arange(len(cells)).float()[:, None]  # so that a state tells its cell
    pairs = moves_by_tissue(z, cells, ~truth.perturbed, truth.perturbed, ONE)
    assert len(pairs) == 3
    seen = []
    for pair in pairs:
        for move, held_out in zip(pair, (False, True), strict=True):
            for states, perturbed in ((move.before, False), (move.after, True)):
                index = states.squeeze(1).long()
                seen += index.tolist()
                assert (cells.tissue[index] == move.tissue).all()
                assert (cells.held_out[index] == held_out).all()
                assert (truth.perturbed[index] == perturbed).all()
    assert sorted(seen) == list(range(len(cells)))


def test_a_tissue_with_few_cells_is_left_out(simulated):
    cells, truth = simulated
    few = truth.perturbed & (cells.tissue[:, 2] == 0)
    z = truth.z
    assert len(moves_by_tissue(z, cells, ~truth.perturbed, few, ONE)) == 2
    assert moves_by_tissue(z, cells, ~truth.perturbed, few, ONE, least=1000) == []


def test_latent_states_must_be_constants_one_per_cell(simulated):
    cells, truth = simulated
    for z in (truth.z.clone().requires_grad_(), truth.z[:-1]):
        with pytest.raises(ValueError, match="z: expected one constant row for each of 400 cells"):
            moves_by_tissue(z, cells, ~truth.perturbed, truth.perturbed, ONE)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 9), m=st.integers(2, 9), d=st.integers(1, 5), seed=st.integers(0, 99))
def test_distance_is_that_of_the_drawn_cells_without_self_pairs(n, m, d, seed):
    x, y = gaussian(n, d, seed=seed), gaussian(m, d, seed=seed + 100)
    generator = torch.Generator().manual_seed(seed)
    w, v = resampled(n, 3, generator), resampled(m, 3, generator)
    assert (w.sum(1) == n).all()
    assert (w[0] == 1).all()

    def mean(a, b, p, q, distinct):
        pairs = [
            (p[i] * q[j], cdist(a[i : i + 1], b[j : j + 1])[0, 0])
            for i in range(len(a))
            for j in range(len(b))
            if not (distinct and i == j)
        ]
        total = sum(weight for weight, _ in pairs)
        return sum(weight * d for weight, d in pairs) / total if total else np.nan

    got = weighted_energy(x, y, w, v)
    a, b = x.double().numpy(), y.double().numpy()
    for row, (p, q) in enumerate(zip(w.numpy(), v.numpy(), strict=True)):
        wanted = 2 * mean(a, b, p, q, False) - mean(a, a, p, p, True) - mean(b, b, q, q, True)
        np.testing.assert_allclose(got[row], wanted, atol=ROUNDING)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    delta, spread = 1.0, sqrt(2)
    apart = spread * sqrt(2 / pi) * exp(-((delta / spread) ** 2) / 2)
    truth = 2 * (apart + delta * erf(delta / spread / sqrt(2))) - 2 * spread * sqrt(2 / pi)
    generator, covered = torch.Generator().manual_seed(0), 0
    for _ in range(300):
        x = torch.randn(40, 1, generator=generator)
        y = torch.randn(60, 1, generator=generator) + delta
        w, v = (resampled(n, 300, generator) for n in (40, 60))
        found = interval(weighted_energy(x, y, w, v), 0.9)
        covered += found.low <= truth <= found.high
    assert 0.84 < covered / 300 < 0.95  # 0.9 and three standard errors, less what 40 cells miss


def test_equal_populations_are_not_found_apart():
    generator, values, covered = torch.Generator().manual_seed(0), [], 0
    for _ in range(200):
        x, y = torch.randn(2, 30, 4, generator=generator)
        drawn = weighted_energy(x, y, resampled(30, 200, generator), resampled(30, 200, generator))
        values.append(float(drawn[0]))
        covered += interval(drawn, 0.95).low <= 0
    assert abs(np.mean(values)) < 3 * np.std(values) / sqrt(200)  # no bias
    assert covered / 200 > 0.9


def test_a_model_that_does_nothing_is_no_change():
    before, after = gaussian(20, 3), gaussian(30, 3, seed=1) + 2
    move = Move(before, after, ONE, ONE)
    result = carry(OperatorModel(3, 1, 1), [(move, move)])
    assert result.distances["operator"] == result.distances["no change"]
    assert result.distances["mean shift"].high < result.distances["no change"].low
    assert result.gain.high < 0
    assert torch.equal(result.after, before)
    assert str(result).splitlines()[0].startswith("no change")


def test_the_true_model_beats_the_shift_and_the_same_seed_gives_the_same_bits():
    before = gaussian(400, 3)
    move = Move(before[:200], 2 * before[200:], ONE, ONE)
    model = OperatorModel(3, 1, 1)
    with torch.no_grad():
        model.basis.mul_(2)
    results = [carry(model, [(move, move)], guards=OPERATOR_OFF) for _ in range(2)]
    assert results[0].gain.low > 0
    assert results[0].distances == results[1].distances


def test_the_shift_is_fitted_on_training_cells():
    train = Move(gaussian(20, 2), gaussian(20, 2, seed=1) + 5, ONE, ONE)
    test = Move(gaussian(9, 2, seed=2), gaussian(9, 2, seed=3) - 5, ONE, ONE)
    result = carry(OperatorModel(2, 1, 1), [(train, test)])
    assert result.distances["mean shift"].value > result.distances["no change"].value


def test_no_pairs_is_a_clear_error():
    with pytest.raises(ValueError, match="no tissue had enough cells"):
        carry(OperatorModel(2, 1, 1), [])
