"""The check by sums misses nothing and raises no false alarm."""

import math

import pytest
import torch
from torch import nn

from labkit.watch.check import all_finite, bad_names, word

BAD = (math.nan, math.inf, -math.inf)


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_one_bad_entry_is_never_missed(value, dtype):
    tensor = torch.randn(37, 53).to(dtype)
    assert all_finite([tensor])
    tensor[17, 29] = value
    assert not all_finite([torch.zeros(3), tensor])
    assert word(tensor) == ("nan" if math.isnan(value) else "inf")


def test_infinities_of_both_signs_do_not_cancel():
    assert not all_finite([torch.tensor([math.inf, -math.inf])])
    assert not all_finite([torch.tensor([math.inf]), torch.tensor([-math.inf])])


def test_a_sum_that_overflows_is_looked_at_exactly():
    large = torch.full((4,), 3e38)
    assert math.isinf(large.sum())
    assert all_finite([large])
    assert all_finite([torch.full((4,), 60000.0, dtype=torch.float16)])
    assert not all_finite([large, torch.tensor([math.nan])])


def sparse(value):
    return torch.sparse_coo_tensor([[0, 2]], [1.0, value], (5,), check_invariants=True)


def test_other_layouts_and_types():
    bad = sparse(math.nan)
    assert not all_finite([bad])
    assert all_finite([sparse(2.0)])
    assert not all_finite([torch.tensor([1 + 1j * math.inf])])
    assert all_finite([torch.ones(3, dtype=torch.long), torch.tensor([]), torch.tensor(1j)])
    assert not all_finite([nn.Parameter(torch.tensor([math.nan]))])
    assert all_finite([])


def test_the_names_of_what_is_bad():
    tensors = {"a": torch.ones(2), "b": torch.tensor([math.inf]), "c": torch.tensor([math.nan])}
    assert bad_names(tensors | {"none": None}) == ["b (inf)", "c (nan)"]
