"""The operator model: its algebra, what bounds a rollout, and each guard at work and at rest."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.models.guards import Guard, unguarded
from labkit.models.operator import (
    OPERATOR_GUIDE,
    OPERATOR_OFF,
    OPERATOR_REPAIRED,
    OperatorModel,
    refuse_nan,
)
from labkit.models.spectral import (
    NormBound,
    spectral_norm,
    unit,
    unit_guide,
)

ROUNDING = 1e-5  # relative, float32: a few hundred units for products and sums of 12 terms
LONG = 10_000  # steps; rounding of the bound may compound over them: 10,000 x 1e-7


def filled(model: OperatorModel, size: float = 1.0, seed: int = 0) -> OperatorModel:
    """The model with Gaussian parameters of the given size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
    return model


def inputs(cells: int, latent: int, tissues: int = 2, perturbations: int = 2, seed: int = 0):
    """States, and one-hot tissue and perturbation."""
    g = torch.Generator().manual_seed(seed)
    tissue = torch.eye(tissues)[torch.randint(tissues, (cells,), generator=g)]
    perturbation = torch.eye(perturbations)[torch.randint(perturbations, (cells,), generator=g)]
    return torch.randn(cells, latent, generator=g), tissue, perturbation


def set_every_basis(model: OperatorModel, A: torch.Tensor) -> OperatorModel:
    with torch.no_grad():
        model.basis.copy_(A.expand_as(model.basis))
    return model


def test_it_starts_at_no_change():
    z0, tissue, perturbation = inputs(20, 6)
    for weights in ("convex", "linear"):
        model = OperatorModel(6, 2, 2, weights=weights)
        torch.testing.assert_close(model(z0, tissue, perturbation, steps=5), z0)


@settings(max_examples=40, deadline=None)
@given(
    cells=st.integers(0, 9),
    latent=st.integers(1, 8),
    basis=st.integers(1, 4),
    steps=st.integers(0, 4),
    weights=st.sampled_from(["convex", "linear"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_a_rollout_is_the_mixture_applied_step_by_step(cells, latent, basis, steps, weights, dtype):
    model = filled(OperatorModel(latent, 2, 3, basis, weights)).to(dtype)
    z0, tissue, perturbation = (v.to(dtype) for v in inputs(cells, latent, 2, 3))
    states = model.rollout(z0, tissue, perturbation, steps, OPERATOR_OFF)
    assert states.shape == (steps + 1, cells, latent)
    assert states.dtype == dtype
    B, W, V = (p.detach().double().numpy() for p in (model.basis, model.response, model.shift))
    for cell in range(cells):
        condition = np.concatenate([tissue[cell], perturbation[cell]])
        alpha = condition @ W
        exponent = np.exp(alpha - alpha.max())
        alpha = exponent / exponent.sum() if weights == "convex" else alpha + 1 / basis
        z = z0[cell].double().numpy()
        for step in range(steps + 1):
            got = states[step, cell].detach().double().numpy()
            np.testing.assert_allclose(got, z, rtol=ROUNDING, atol=ROUNDING * (1 + abs(z).max()))
            z = np.tensordot(alpha, B, 1) @ z + condition @ V


def test_cells_do_not_depend_on_their_neighbours():
    model, (z0, tissue, perturbation) = filled(OperatorModel(5, 2, 2)), inputs(30, 5)
    whole = model(z0, tissue, perturbation)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(z0[order], tissue[order], perturbation[order]), whole[order])
    alone = model(z0[:1], tissue[:1], perturbation[:1])
    torch.testing.assert_close(alone, whole[:1])


def test_every_parameter_and_the_state_get_a_gradient():
    model, (z0, tissue, perturbation) = filled(OperatorModel(5, 2, 2)), inputs(30, 5)
    z0.requires_grad_()
    model(z0, tissue, perturbation, steps=3).square().sum().backward()
    for name, parameter in [("z0", z0), *model.named_parameters()]:
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


def test_gradients_by_finite_differences():
    model = filled(OperatorModel(3, 2, 2), 0.5).double()
    z0, tissue, perturbation = (v.double() for v in inputs(4, 3))

    def end(basis, response, shift, z):
        parameters = {"basis": basis, "response": response, "shift": shift}
        return torch.func.functional_call(model, parameters, (z, tissue, perturbation, 2))

    point = [model.basis, model.response, model.shift, z0]
    assert torch.autograd.gradcheck(end, [v.detach().requires_grad_() for v in point])


def test_the_seed_decides_and_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    one, same, other = (
        OperatorModel(4, 2, 2),
        OperatorModel(4, 2, 2),
        OperatorModel(4, 2, 2, seed=1),
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(one.response, same.response)
    assert not torch.equal(one.response, other.response)


# What bounds a rollout


def test_bounds_on_the_basis_do_not_bound_a_linear_mixture():
    z0, tissue, perturbation = inputs(4, 3)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    model = set_every_basis(OperatorModel(3, 2, 2, weights="linear"), 1.05 * rotation)
    with torch.no_grad():
        model.response.fill_(1.0 - 1 / 6)  # of tissue and of perturbation: every alpha is 2
    assert model.alpha(torch.tensor([[1.0, 0, 1, 0]])).tolist() == [[2.0, 2.0, 2.0]]
    finite = model.rollout(z0, tissue, perturbation, 60, OPERATOR_OFF).isfinite().all((1, 2))
    assert 45 < int(finite.sum()) <= 51  # float32 ends at a factor of 6.3 a step
    assert model.spectral_penalty(1.051).detach() == 0  # and the penalty sees nothing
    model.weights = "convex"
    convex = spectral_norm(model.operator(torch.eye(4)).detach())
    assert float(convex.max()) <= 1.05 * (1 + ROUNDING)


def worst_case(norm: float) -> OperatorModel:
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0]
    return set_every_basis(OperatorModel(4, 2, 2), norm * rotation)


def test_the_repaired_guards_bound_ten_thousand_steps_and_1_05_does_not():
    z0, tissue, perturbation = inputs(4, 4)
    model = worst_case(1.05)
    ours = model.rollout(z0, tissue, perturbation, LONG).detach()
    assert float((ours.norm(dim=2) / z0.norm(dim=1)).max()) < 1 + LONG * 2e-7
    at_the_guides_bound = replace(OPERATOR_REPAIRED, operator=NormBound(1.05))
    with pytest.raises(FloatingPointError, match="rollout step 2"):  # 1.05^283 is 1e6
        model.rollout(z0, tissue, perturbation, LONG, at_the_guides_bound)
    unguarded = model.rollout(z0, tissue, perturbation, LONG, OPERATOR_OFF)
    assert 1800 < int(unguarded.isfinite().all((1, 2)).sum()) < 1850


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_bounded_too(dtype):
    z0, tissue, perturbation = inputs(4, 4)
    model = worst_case(20.0).to(dtype)
    states = model.rollout(z0.to(dtype), tissue, perturbation, 10)
    assert states.dtype == dtype
    growth = states[-1].float().norm(dim=1) / z0.norm(dim=1)
    assert float(growth.detach().max()) < 1 + 20 * torch.finfo(dtype).eps  # ten rounded steps
    states.float().sum().backward()
    assert model.basis.grad.isfinite().all()


def test_overflow_is_the_operators_growth_and_not_rounding():
    z0, tissue, perturbation = inputs(4, 4)
    narrow = worst_case(1.2)(z0, tissue, perturbation, 440, OPERATOR_OFF)
    model = worst_case(1.2).double()
    exact = model(z0.double(), tissue.double(), perturbation.double(), 440, OPERATOR_OFF)
    narrow, exact = narrow.detach(), exact.detach()
    assert float(narrow.abs().max()) > 1e34
    assert float((narrow - exact).norm() / exact.norm()) < 1e-4


# The four guards: one run where each acts, one where it kills a gradient or cannot, one at rest


def test_guard_1_the_penalty_acts_kills_no_gradient_and_rests():
    model = worst_case(2.0)
    penalty = model.spectral_penalty(iterations=50)
    assert float(penalty.detach()) == pytest.approx(3 * 0.95**2, rel=1e-3)
    penalty.backward()
    assert (model.basis.grad.flatten(1).norm(dim=1) > 0).all()  # it adds a gradient, edits nothing
    rest = worst_case(1.0)
    rest.spectral_penalty().backward()
    assert rest.basis.grad.count_nonzero() == 0


def test_guard_1_the_bound_acts_kills_one_direction_and_rests():
    z0, tissue, perturbation = inputs(6, 4)
    model = worst_case(2.0)
    z1 = model(z0, tissue, perturbation)
    torch.testing.assert_close(z1.norm(dim=1), z0.norm(dim=1))
    for guards, dead in ((OPERATOR_REPAIRED, True), (OPERATOR_OFF, False)):
        z1 = model(z0, tissue, perturbation, guards=guards)
        (g,) = torch.autograd.grad(z1.square().sum(), model.basis)
        along = float((g * model.basis).sum().detach() / g.norm())
        assert (abs(along) < ROUNDING) == dead  # a shorter A would make z1 shorter
        (g,) = torch.autograd.grad(
            model(z0, tissue, perturbation, guards=guards)[:, 0].sum(), model.basis
        )
        assert float(g.norm()) > 0.1  # the other directions live
    still = worst_case(0.99)
    bounded = still(z0, tissue, perturbation, guards=OPERATOR_REPAIRED)
    assert torch.equal(bounded, still(z0, tissue, perturbation, guards=OPERATOR_OFF))


@pytest.mark.parametrize("normalise", [unguarded, unit_guide, unit])
def test_guard_2_changes_no_estimate_where_the_iterate_is_well_scaled(normalise):
    model = filled(OperatorModel(6, 2, 2), seed=3)
    wanted = (spectral_norm(model.basis) - 1.05).relu().square().sum()
    penalty = model.spectral_penalty(iterations=15, normalise=normalise)
    torch.testing.assert_close(penalty, wanted, rtol=0.01, atol=0)


def test_guard_2_without_it_a_warm_iterate_overflows():
    model = filled(OperatorModel(6, 2, 2), 100.0)
    for _ in range(30):
        off = model.spectral_penalty(normalise=unguarded)
    assert not off.isfinite()


def test_guard_2_at_zero_and_at_1e19():
    zero = set_every_basis(OperatorModel(3, 2, 2), torch.zeros(3, 3))
    assert zero.spectral_penalty(normalise=unit_guide).isnan()
    penalty = zero.spectral_penalty()
    penalty.backward()
    assert float(penalty.detach()) == 0
    assert zero.basis.grad.isfinite().all()
    huge = set_every_basis(OperatorModel(3, 2, 2), 1e18 * torch.ones(3, 3))
    huge.spectral_penalty().backward()
    assert (huge.basis.grad > 0).all()


def test_guard_2_sees_a_direction_that_the_warm_probe_had_left():
    model = set_every_basis(OperatorModel(2, 2, 2), torch.diag(torch.tensor([1.0, 0.01])))
    for _ in range(200):
        model.spectral_penalty()
    assert model.probe[:, 1].abs().max() < 1e-3  # it lies along the first axis
    set_every_basis(model, torch.diag(torch.tensor([1.0, 3.0])))
    for _ in range(12):
        penalty = model.spectral_penalty()
    assert float(penalty.detach()) == pytest.approx(3 * 1.95**2, rel=1e-3)


def test_guard_2_the_probe_survives_what_the_guides_form_returns():
    model = set_every_basis(OperatorModel(3, 2, 2), torch.zeros(3, 3))
    model.spectral_penalty(normalise=unit_guide)
    assert model.probe.isfinite().all()


@pytest.mark.parametrize(
    ("worst", "guide", "repaired"),
    [
        (0.0, True, True),
        (1e5, True, True),
        (1e20, True, False),  # its distance overflows
        (torch.inf, True, False),
        (torch.nan, False, False),
    ],
)
def test_guard_4_refuses_what_a_distance_cannot_bear(worst, guide, repaired):
    z0, tissue, perturbation = inputs(4, 1)
    model = OperatorModel(1, 2, 2)
    z0[2] = worst
    for guards, passes in ((OPERATOR_GUIDE, guide), (OPERATOR_REPAIRED, repaired)):
        if passes:
            model(z0, tissue, perturbation, guards=guards)
        else:
            with pytest.raises(FloatingPointError, match="rollout step 1"):
                model(z0, tissue, perturbation, guards=guards)
    model(z0, tissue, perturbation, guards=OPERATOR_OFF)


def test_guard_4_edits_no_bit_and_no_gradient():
    z0, tissue, perturbation = inputs(4, 3)
    ends, grads = [], []
    for guard in (OPERATOR_OFF.state, refuse_nan, Guard("state", "refuse", -1e6, 1e6)):
        model = filled(OperatorModel(3, 2, 2))
        end = model(z0, tissue, perturbation, 3, replace(OPERATOR_OFF, state=guard))
        end.square().sum().backward()
        ends.append(end)
        grads.append(model.basis.grad)
    assert all(torch.equal(ends[0], end) for end in ends)
    assert all(torch.equal(grads[0], grad) for grad in grads)


# Bad input


@pytest.mark.parametrize(
    ("which", "shape"), [(0, (5, 4)), (0, (5,)), (1, (4, 2)), (1, (5, 3)), (2, (5, 1))]
)
def test_wrong_shapes_are_named(which, shape):
    given = list(inputs(5, 3))
    given[which] = torch.zeros(shape)
    with pytest.raises(ValueError, match="expected shape"):
        OperatorModel(3, 2, 2)(*given)


def test_wrong_sizes_weights_and_steps_are_named():
    with pytest.raises(ValueError, match="weights: expected convex or linear"):
        OperatorModel(3, 2, 2, weights="softmax")
    with pytest.raises(ValueError, match="expected 1 or more"):
        OperatorModel(0, 2, 2)
    with pytest.raises(ValueError, match="steps: expected"):
        OperatorModel(3, 2, 2)(*inputs(5, 3), steps=-1)
