"""`check_tensor` beside the guide's original, at each of its blind spots."""

import math

import pytest
import torch
from originals import original

from labkit.guide import check_tensor

theirs = original("check_tensor")
NAN, INF = math.nan, math.inf


def test_nan_does_not_hide_inf():
    t = torch.tensor([1.0, INF, NAN, -INF])
    assert "Inf" not in theirs(t)
    assert "NaN (1/4), +Inf (1/4), -Inf (1/4), first at [1]" in check_tensor(t)
    assert check_tensor(t).startswith("❌")
    assert check_tensor(torch.tensor([INF])).startswith("⚠️")


@pytest.mark.parametrize(
    ("value", "dtype"), [(1e38, torch.float32), (6e4, torch.float16), (1e200, torch.float64)]
)
def test_huge_is_not_well(value, dtype):
    t = torch.full((3,), value, dtype=dtype)
    assert theirs(t).startswith("✅")
    assert check_tensor(t).startswith("⚠️")
    assert check_tensor(t / 1e30 if dtype is torch.float32 else t[:1] * 0 + 1).startswith("✅")
    assert check_tensor(t, safe=INF).startswith("✅")


@pytest.mark.parametrize(
    "t", [torch.arange(3), torch.tensor([True, False]), torch.zeros(0, 3)], ids=["int", "bool", "0"]
)
def test_every_tensor_gets_a_line(t):
    with pytest.raises(RuntimeError):
        theirs(t)
    assert check_tensor(t)


def test_an_empty_tensor_needs_a_look():
    assert check_tensor(torch.zeros(0, 3)) == "⚠️  empty, shape (0, 3)"


def test_the_mean_of_finite_numbers_is_finite():
    t = torch.tensor([3e38, 3e38])
    assert "mean=inf" in theirs(t)
    assert "mean=3.00e+38" in check_tensor(t)
    assert "mean=2.00e+00" in check_tensor(torch.tensor([1.0, NAN, 3.0, -INF]))


def test_zeros_are_counted():
    t = torch.tensor([0.0, 0.0, 0.0, 1.0])
    assert "75%" not in theirs(t)
    assert "zeros 75% (3/4)" in check_tensor(t)


def test_what_is_healthy_reads_as_in_the_guide():
    t = torch.tensor([1.0, 2.0, 6.0])
    assert check_tensor(t) == theirs(t)


@pytest.mark.parametrize("t", [1.5, torch.tensor(2j), torch.eye(2).to_sparse()])
def test_numbers_and_unusual_tensors_are_taken(t):
    assert check_tensor(t).startswith("✅")


@pytest.mark.parametrize("t", [None, [1.0], "x"])
def test_what_is_no_tensor_is_refused(t):
    with pytest.raises(TypeError, match="expected a tensor or a number"):
        check_tensor(t)
