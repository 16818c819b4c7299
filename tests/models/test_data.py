"""The packaged cells are the ones that the rebuild script found, and bad counts are named."""

import hashlib

import numpy as np
import pytest
import torch

from labkit.cells.data import PBMC, load_pbmc, validate_counts
from labkit.cells.rebuild import invert

SHA256 = "f998093ad5a4c10c8dfe65389d998565bf7576362d6e2165f8f822bfbf279db8"
ENTRIES_NOT_ZERO = 174_400
LARGEST = 259


@pytest.fixture(scope="module")
def cells():
    return load_pbmc()


def test_the_packaged_file_is_the_known_one():
    assert hashlib.sha256(PBMC.read_bytes()).hexdigest() == SHA256


def test_counts_are_the_known_integers(cells):
    assert cells.counts.shape == (700, 765)
    assert (cells.counts == cells.counts.round()).all()
    assert cells.counts.min() == 0
    assert cells.counts.max() == LARGEST
    assert int((cells.counts > 0).sum()) == ENTRIES_NOT_ZERO
    assert len(set(cells.genes)) == 765
    assert (len(cells.type_names), cells.tissue_names) == (10, ("G1", "G2M", "S"))


def test_library_holds_more_genes_than_these(cells):
    assert (cells.library > cells.counts.sum(1)).all()


def test_tissue_is_one_hot(cells):
    assert (cells.tissue.sum(1) == 1).all()
    assert cells.tissue.sum(0).tolist() == [501, 17, 182]


def test_split_is_seeded_disjoint_and_holds_every_type_on_both_sides(cells):
    again, other = load_pbmc(), load_pbmc(seed=1)
    assert torch.equal(cells.held_out, again.held_out)
    assert not torch.equal(cells.held_out, other.held_out)
    assert len(cells.train) + len(cells.test) == 700
    for part in (cells.train, cells.test):
        assert set(part.cell_type.tolist()) == set(range(10))
    assert not cells.train.held_out.any()


def test_inverting_the_stored_layer_restores_counts():
    counts = np.array([[0, 1, 7], [259, 2, 0]])
    library = np.array([2141.0, 9497.0])
    stored = np.round(np.log1p(counts / library[:, None] * 1e4), 3)
    restored, residual = invert(stored, library)
    assert (restored == counts).all()
    assert 0 < residual < 0.5
    with pytest.raises(ValueError, match="away from integers"):
        invert(stored, library * 1.3)


@pytest.mark.parametrize(
    ("check", "value"),
    [("finite", float("nan")), ("finite", float("inf")), ("negative", -1.0), ("integer", 0.5)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_bad_counts_are_named_with_their_place(check, value, dtype):
    x = torch.ones(4, 3, dtype=dtype)
    x[2, 1] = value
    with pytest.raises(ValueError, match=rf"'{check}'.*cell 2, gene 1 \(1 such"):
        validate_counts(x)


@pytest.mark.parametrize("shape", [(4,), (4, 2), (1, 4, 3)])
def test_counts_of_a_wrong_shape_are_named(shape):
    with pytest.raises(ValueError, match="'shape'"):
        validate_counts(torch.ones(shape), n_genes=3)


def test_good_counts_come_back_as_they_are(cells):
    assert validate_counts(cells.counts, 765) is cells.counts
    assert validate_counts(torch.zeros(0, 3)).shape == (0, 3)
