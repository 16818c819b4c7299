"""Energy distance and its gradients against float64 subtraction; what any such distance obeys."""

import pytest
import torch
from clouds import (
    DOUBLE,
    GRADIENT,
    GRADIENT_DOUBLE,
    HARD,
    VALUE,
    X,
    Y,
    differentiated,
    randn,
    truth,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from labkit.models.energy import (
    Reference,
    energy_distance,
    energy_distance_half,
    energy_distance_squared,
)


@pytest.mark.parametrize("case", HARD)
def test_value_and_gradients_hold_where_others_break(case):
    x, y = HARD[case]
    value, gradients, mean, cross = truth(x, y)
    found, got = differentiated(x, y)
    assert abs(float(found) - value) <= VALUE * mean
    for g, want, scale in zip(got, gradients, cross, strict=True):
        assert g.isfinite().all()
        assert (g - want).norm() <= GRADIENT * scale.norm()
        assert (g - want).norm(dim=1).max() <= GRADIENT * scale.norm(dim=1).max()


@pytest.mark.parametrize("case", ["plain", "offset 1e5", "near duplicates 1e-4", "log counts"])
@pytest.mark.parametrize("biased", [True, False])
def test_float64(case, biased):
    x, y = (s.double()[:150, :7] for s in HARD[case])
    value, gradients, mean, cross = truth(x, y, biased)
    found, got = differentiated(x, y, biased=biased)
    assert abs(float(found) - value) <= DOUBLE * mean
    for g, want, scale in zip(got, gradients, cross, strict=True):
        assert (g - want).norm() <= GRADIENT_DOUBLE * scale.norm()


@pytest.mark.parametrize("biased", [True, False])
def test_gradcheck(biased):
    x, y = (randn(n, 3, seed=n, dtype=torch.float64).requires_grad_() for n in (6, 5))
    x.data[5] = x.data[4]  # a pair that coincides is a kink: keep it fixed
    free = x.detach()[:5].clone().requires_grad_()
    fixed = Reference.of(y.detach())
    assert gradcheck(lambda a, b: energy_distance(a, b, biased=biased), (free, y))
    assert gradcheck(lambda a: energy_distance(a, y.detach(), biased=biased), free)
    assert gradcheck(lambda b: energy_distance(free.detach(), b, biased=biased), y)
    assert gradcheck(lambda a: energy_distance(a, fixed, biased=biased), free)
    assert gradcheck(energy_distance_half, (free, y))
    assert gradcheck(lambda a, b: energy_distance_squared(a, b, biased=biased), (free, y))


def test_coincident_rows_have_gradient_zero():
    _, (to_x, to_y) = differentiated(torch.ones(3, 2), torch.ones(4, 2))
    assert not to_x.any()
    assert not to_y.any()


BAD = [
    (torch.ones(4), torch.ones(4, 2), ValueError, r"\(row, axis\), got \(4,\)"),
    (torch.ones(4, 2), torch.ones(4, 2, 2), ValueError, r"\(row, axis\), got \(4, 2, 2\)"),
    (torch.ones(4, 0), torch.ones(4, 0), ValueError, r"\(row, axis\), got \(4, 0\)"),
    (torch.ones(4, 2), torch.ones(4, 3), ValueError, "as many axes in y as in x, 2, got 3"),
    (torch.ones(1, 2), torch.ones(4, 2), ValueError, "at least 2 rows, got 1; biased=True"),
    (torch.ones(4, 2), torch.ones(0, 2), ValueError, "at least 2 rows, got 0$"),
    (torch.ones(4, 2).long(), torch.ones(4, 2), TypeError, r"int64; use x.float\(\)"),
    (torch.ones(4, 2), torch.ones(4, 2).double(), TypeError, "float32, got torch.float64"),
]


@pytest.mark.parametrize(("x", "y", "error", "message"), BAD)
@pytest.mark.parametrize("form", [energy_distance, energy_distance_squared])
def test_bad_input_gets_a_clear_error(form, x, y, error, message):
    with pytest.raises(error, match=message):
        form(x, y)


def test_a_reference_is_checked_too():
    with pytest.raises(TypeError, match=r"float32, got torch.float64"):
        energy_distance(X, Reference.of(Y.double()))
    with pytest.raises(ValueError, match="axes"):
        energy_distance(X, Reference.of(Y[:, :3]))
    with pytest.raises(ValueError, match="at least 2 rows, got 1"):
        energy_distance(X, Reference.of(Y[:1]))


def test_one_row_is_enough_for_the_v_statistic():
    x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    value, (to_x, to_y) = differentiated(x, y, biased=True)
    assert value == 10
    torch.testing.assert_close(to_x, torch.tensor([[-1.2, -1.6]]))
    torch.testing.assert_close(to_y, torch.tensor([[1.2, 1.6]]))
    with pytest.raises(ValueError, match="at least 1 rows, got 0"):
        energy_distance(x[:0], y, biased=True)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_seen(bad):
    x = X.clone()
    x[3, 4] = bad
    value, (to_x, to_y) = differentiated(x, Y)
    assert value.isnan()
    assert to_x.isnan().any()
    assert to_y.isnan().any()


samples = st.integers(2, 25)
NEAR = {torch.float32: 4 * VALUE, torch.float64: 4 * DOUBLE}  # two runs, each with its error


@settings(max_examples=60, deadline=None)
@given(
    n=samples,
    m=samples,
    d=st.integers(1, 6),
    seed=st.integers(0, 99),
    copies=st.integers(0, 5),
    power=st.integers(-60, 60),
    biased=st.booleans(),
    dtype=st.sampled_from(list(NEAR)),
)
def test_what_any_energy_distance_obeys(n, m, d, seed, copies, power, biased, dtype):
    x = randn(n, d, seed=seed, dtype=dtype)
    y = torch.cat([0.5 + randn(m, d, seed=seed + 100, dtype=dtype), x[:copies]])
    value, (to_x, to_y) = differentiated(x, y, biased=biased)
    bound = NEAR[dtype] * float(truth(x, y)[2])

    swapped, (of_y, of_x) = differentiated(y, x, biased=biased)
    assert abs(swapped - value) <= bound
    torch.testing.assert_close(of_x, to_x, rtol=0, atol=GRADIENT)
    torch.testing.assert_close(of_y, to_y, rtol=0, atol=GRADIENT)

    step = torch.full((d,), 2.0**-3, dtype=dtype)  # moves float32 by whole digits, nearly
    assert abs(energy_distance(x + step, y + step, biased=biased) - value) <= 3 * bound

    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    permuted, (rows, _) = differentiated(x[order], y, biased=biased)
    assert abs(permuted - value) <= bound
    torch.testing.assert_close(rows, to_x[order], rtol=0, atol=GRADIENT)

    scaled, (same, _) = differentiated(2.0**power * x, 2.0**power * y, biased=biased)
    assert abs(scaled * 2.0**-power - value) <= bound
    torch.testing.assert_close(same, to_x, rtol=0, atol=GRADIENT)

    if biased:
        assert value >= -bound
        assert abs(energy_distance(x, x.flip(0), biased=True)) <= bound
