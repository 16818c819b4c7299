"""Norms against numpy in float64, over shapes, dtypes and entries of every size."""

from functools import partial

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.models.guards import unguarded
from labkit.models.spectral import (
    NormBound,
    log10_growth,
    power_sigma,
    spectral_norm,
    unit,
    unit_guide,
)
from labkit.probes.trace import trace

# 16 units of rounding: an SVD of up to 12 columns errs by a few
ROUNDING = {d: 16 * torch.finfo(d).eps for d in (torch.bfloat16, torch.float32, torch.float64)}
CONVERGED = 1e-3  # relative; power iteration where the top singular values lie apart
TIED = 0.02  # relative; where they may nearly tie, after 300 iterations


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Gaussian numbers with their own generator."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def truth(A: torch.Tensor) -> np.ndarray:
    """Largest singular values in float64; entries stay far below its range."""
    return np.linalg.svd(A.detach().double().numpy(), compute_uv=False)[..., 0]


sizes = st.integers(1, 12)
powers = st.integers(-36, 36)  # of ten: float32 holds the entries and their norm


@settings(max_examples=60, deadline=None)
@given(
    stack=st.integers(0, 3),
    rows=sizes,
    columns=sizes,
    power=powers,
    dtype=st.sampled_from(list(ROUNDING)),
    seed=st.integers(0, 99),
)
def test_the_exact_norm_is_that_of_float64(stack, rows, columns, power, dtype, seed):
    A = (gaussian(stack, rows, columns, seed=seed) * 10.0**power).to(dtype)
    np.testing.assert_allclose(spectral_norm(A).double(), truth(A), rtol=ROUNDING[dtype])


@settings(max_examples=60, deadline=None)
@given(rows=sizes, columns=sizes, power=powers, seed=st.integers(0, 99))
def test_power_iteration_is_a_lower_bound_that_arrives(rows, columns, power, seed):
    A = gaussian(2, rows, columns, seed=seed) * 10.0**power
    start = gaussian(2, columns, 1, seed=seed + 100)
    early, late = power_sigma(A, start, 2)[0], power_sigma(A, start, 300)[0]
    top = truth(A) * (1 + ROUNDING[torch.float32])
    assert (early.double().numpy() <= top).all()
    assert (late.double().numpy() <= top).all()
    np.testing.assert_allclose(late.double(), truth(A), rtol=TIED)
    assert (late >= early * (1 - CONVERGED)).all()


def test_its_gradient_is_that_of_the_exact_norm():
    A = gaussian(3, 6, 6, dtype=torch.float64).requires_grad_()
    (exact,) = torch.autograd.grad(torch.linalg.matrix_norm(A, 2).sum(), A)
    estimate, _ = power_sigma(A, gaussian(3, 6, 1, dtype=torch.float64), 500)
    (ours,) = torch.autograd.grad(estimate.sum(), A)
    torch.testing.assert_close(ours, exact, rtol=0, atol=1e-6)


def test_one_warm_iteration_follows_a_drifting_matrix():
    A, v, errors = gaussian(1, 32, 32), gaussian(1, 32, 1, seed=1), []
    for step in range(100):
        A = A + 0.01 * gaussian(1, 32, 32, seed=2 + step)
        sigma, v = power_sigma(A, v)
        errors.append(1 - float(sigma) / truth(A)[0])
    assert errors[0] > 0.05  # cold: far too low
    assert max(errors[50:]) < 0.02


def test_zero_has_norm_zero_and_a_finite_gradient():
    for norm in (spectral_norm, lambda A: power_sigma(A, torch.ones(1, 3, 1))[0]):
        A = torch.zeros(1, 3, 3, requires_grad=True)
        norm(A).sum().backward()
        assert A.grad.isfinite().all()
    guide, _ = power_sigma(torch.zeros(1, 3, 3), torch.ones(1, 3, 1), normalise=unit_guide)
    assert guide.isnan().all()


def test_entries_of_1e19_blind_the_guide_and_not_us():
    A, v = 1e19 * gaussian(1, 4, 4), gaussian(1, 4, 1, seed=1)
    assert power_sigma(A, v, 50, unit_guide)[0].isnan().all()
    with_eps, _ = power_sigma(A, v, 50, partial(unit_guide, eps=1e-12))
    assert float(with_eps) == 0  # a penalty on it vanishes
    assert float(power_sigma(A, v, 50)[0]) == pytest.approx(truth(A)[0], rel=CONVERGED)
    small, _ = power_sigma(A / 1e19, v, 50, unit_guide)
    assert float(small) == pytest.approx(truth(A / 1e19)[0], rel=CONVERGED)


def test_without_normalisation_the_iterate_overflows():
    A, v = gaussian(1, 4, 4), gaussian(1, 4, 1, seed=1)
    assert float(power_sigma(A, v, 10, unguarded)[0]) == pytest.approx(truth(A)[0], rel=TIED)
    assert not power_sigma(A, v, 200, unguarded)[0].isfinite().all()
    assert float(power_sigma(A, v, 200)[0]) == pytest.approx(truth(A)[0], rel=CONVERGED)


@given(size=st.integers(1, 8), power=st.integers(-40, 37), zero=st.booleans())
def test_unit_vectors_of_any_length(size, power, zero):
    x = gaussian(size, 1) * 10.0**power * (not zero)
    wanted = 0.0 if not x.any() else 1.0
    assert float(unit(x).norm()) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_matrix_that_is_not_finite_gives_nan_and_spares_its_neighbours(bad):
    A = torch.stack([torch.full((3, 3), bad), 2 * torch.eye(3)])
    for sigma in (spectral_norm(A), power_sigma(A, torch.ones(2, 3, 1))[0]):
        assert sigma[0].isnan()
        assert float(sigma[1]) == pytest.approx(2)
    assert torch.equal(NormBound(3.0)(A)[1], A[1])


def test_a_healthy_bound_carries_no_nan_that_a_picture_would_show_as_sick():
    A = (3 * gaussian(1, 4, 4)).requires_grad_()
    report = trace(lambda: NormBound(1.0)(A).sum())
    assert [op.name for op in report.ops if any(s.bad for s in op.outputs)] == []


@pytest.mark.parametrize("A", [torch.zeros(3), torch.zeros(2, 0), torch.ones(2, 2).int()])
def test_bad_matrices_get_a_clear_error(A):
    with pytest.raises(ValueError, match="expected floating-point matrices"):
        spectral_norm(A)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bound_must_be_a_positive_number(bad):
    with pytest.raises(ValueError, match="max_norm: expected"):
        NormBound(bad)


@settings(max_examples=40, deadline=None)
@given(d=sizes, power=st.integers(-20, 20), seed=st.integers(0, 99))
def test_the_bound_holds_and_does_no_more_than_it_must(d, power, seed):
    A = gaussian(3, d, d, seed=seed) * 10.0**power
    bounded = NormBound(1.05)(A)
    assert (truth(bounded) <= 1.05 * (1 + ROUNDING[torch.float32])).all()
    short = torch.from_numpy(truth(A) <= 1.05)
    assert torch.equal(bounded[short], A[short])


def test_bound_where_it_does_nothing_is_not_in_the_graph():
    A = (0.5 * torch.eye(3)[None]).requires_grad_()
    assert NormBound(1.0)(A) is A


def test_bound_kills_the_gradient_along_the_matrix_and_no_other():
    A = (3 * gaussian(1, 5, 5, dtype=torch.float64)).requires_grad_()
    weights = gaussian(1, 5, 5, seed=1, dtype=torch.float64)
    (g,) = torch.autograd.grad((NormBound(1.0)(A) * weights).sum(), A)
    along = (g * A.detach()).sum() / g.norm() / A.detach().norm()
    assert along.abs() < 1e-12  # homogeneous of degree 0: Euler
    jacobian = torch.autograd.functional.jacobian(lambda M: NormBound(1.0)(M), A.detach())
    assert int(torch.linalg.matrix_rank(jacobian.reshape(25, 25))) == 24
    assert torch.autograd.gradcheck(NormBound(1.0), A)


def test_for_gain_bounds_the_whole_rollout():
    bound = NormBound.for_gain(10.0, steps=48)
    assert bound.max_norm == pytest.approx(1.0491, abs=1e-4)  # so 1.05 is tenfold in 48 steps
    A = NormBound.for_gain(10.0, 48)(5 * gaussian(1, 4, 4))
    assert float(log10_growth(A, 48).max()) <= 1 + 1e-6


def test_growth_of_powers_against_mpmath():
    A = torch.tensor([[0.9, 10.0], [0.0, 0.9]], dtype=torch.float64)
    exact = [mpmath.mp.svd_r(mpmath.matrix(A.tolist()) ** n, compute_uv=False)[0] for n in (1, 9)]
    growth = 10 ** log10_growth(A, 40)
    assert float(growth[0]) == pytest.approx(float(exact[0]), rel=1e-12)
    assert float(growth[8]) == pytest.approx(float(exact[1]), rel=1e-12)
    assert int(growth.argmax()) == 8  # both eigenvalues are 0.9, and it grows 38.75 times
    assert float(growth.max()) == pytest.approx(38.7459, abs=1e-3)


def test_growth_neither_overflows_nor_divides_by_zero():
    assert float(log10_growth(1e30 * torch.eye(2), 1000)[-1]) == pytest.approx(30_000)
    nilpotent = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    assert log10_growth(nilpotent, 3).tolist() == [0, -torch.inf, -torch.inf]
