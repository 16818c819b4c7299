"""The simulated cells follow the truth that comes with them."""

import pytest
import torch

from labkit.cells.data import validate_counts
from labkit.cells.simulate import simulate

N = 2000  # cells; the tolerances below are at least 4 standard errors at this size


@pytest.fixture(scope="module")
def drawn():
    return simulate(N, n_genes=60, n_tissues=3, seed=3)


def test_same_seed_same_bits_and_other_seed_other_cells():
    (one, truth), (two, again), (other, _) = (simulate(50, 20, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.counts, two.counts)
    assert torch.equal(truth.z, again.z)
    assert not torch.equal(one.counts, other.counts)


def test_counts_are_valid_and_shapes_fit(drawn):
    cells, truth = drawn
    validate_counts(cells.counts, 60)
    assert cells.tissue.shape == (N, 3)
    assert truth.operator.shape == (3, 4, 4)
    assert (cells.tissue.sum(1) == 1).all()


def test_mean_and_variance_are_those_of_the_truth(drawn):
    cells, truth = drawn
    mu, r = truth.log_mu.exp(), truth.log_r.exp()
    score = (cells.counts - mu) / (mu + mu.square() / r).sqrt()
    assert abs(float(score.mean())) < 0.02
    assert abs(float(score.square().mean()) - 1) < 0.08


def test_the_operator_of_its_tissue_moved_each_perturbed_cell_and_no_other(drawn):
    cells, truth = drawn
    operator = truth.operator[cells.tissue.argmax(1)]
    moved = torch.einsum("cij,cj->ci", operator, truth.z_before)
    hit = truth.perturbed
    torch.testing.assert_close(truth.z[hit], moved[hit])
    assert torch.equal(truth.z[~hit], truth.z_before[~hit])
    assert (truth.z[hit] - truth.z_before[hit]).abs().max() > 0.5
    assert 0.4 < hit.float().mean() < 0.6


def test_tissues_have_their_own_operator_and_a_rollout_of_it_stays_bounded(drawn):
    operator = drawn[1].operator
    assert (operator[0] - operator[1]).abs().max() > 0.1
    norms = torch.linalg.matrix_norm(operator, 2)
    torch.testing.assert_close(norms, torch.ones(3))


@pytest.mark.parametrize("wrong", [{"latent_dim": 1}, {"n_tissues": 0}, {"n_tissues": 4}])
def test_impossible_sizes_are_named(wrong):
    with pytest.raises(ValueError, match="latent_dim >= 2 and n_tissues 1 to 3"):
        simulate(20, 10, **wrong)
