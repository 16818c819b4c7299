"""The likelihood as a citizen of PyTorch: dtypes, autograd, shapes, what a tracer sees."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from labkit.kernels import nb_operator
from labkit.models.likelihood import nb_log_likelihood, nb_log_likelihood_from_logs

FORMS = {"values": nb_log_likelihood, "logs": nb_log_likelihood_from_logs}
SAME = 1e-6  # two orders of the same float32 sum
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


def sample(*shape, r_shape=None, dtype=torch.float32, seed=0):
    """Counts, and positive numbers that serve as mu and r or as their logarithms."""
    dice = torch.Generator().manual_seed(seed)
    x = torch.poisson(2 * torch.rand(shape, generator=dice), generator=dice)
    mu = 0.1 + 3 * torch.rand(shape, generator=dice)
    r = 0.1 + 3 * torch.rand(shape if r_shape is None else r_shape, generator=dice)
    return x.to(dtype), mu.to(dtype).requires_grad_(), r.to(dtype).requires_grad_()


@each_form
@pytest.mark.parametrize("r_shape", [(4, 6), (6,), (4, 1), ()])
def test_gradcheck_over_broadcast_shapes_and_blocks(form, r_shape, monkeypatch):
    monkeypatch.setattr(nb_operator, "BLOCK", 5)
    x, mu, r = sample(4, 6, r_shape=r_shape, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda mu, r: form(x, mu, r), (mu, r))


@each_form
def test_blocks_change_no_bit(form, monkeypatch):
    x, mu, r = sample(40, 50)

    def bits():
        value = form(x, mu, r)
        return value, *torch.autograd.grad(value.sum(), (mu, r))

    whole = bits()
    monkeypatch.setattr(nb_operator, "BLOCK", 64)
    for one, many in zip(whole, bits(), strict=True):
        assert torch.equal(one, many)


@each_form
def test_a_second_derivative_is_refused(form):
    x, mu, r = sample(3, 4)
    for which in (mu, r):
        (slope,) = torch.autograd.grad(form(x, mu, r).sum(), which, create_graph=True)
        for other in (mu, r):
            with pytest.raises(RuntimeError, match="a second one was asked for"):
                torch.autograd.grad(slope.sum(), other, retain_graph=True)


@each_form
def test_the_incoming_gradient_may_be_differentiated(form):
    x, mu, r = sample(3, 4)
    weight = torch.ones(3, 4, requires_grad=True)
    (slope,) = torch.autograd.grad((weight * form(x, mu, r)).sum(), mu, create_graph=True)
    (once_more,) = torch.autograd.grad(slope.sum(), weight)
    assert torch.equal(once_more, slope)  # it is linear in the weight, and the weight is 1


@each_form
def test_counts_that_want_a_gradient_are_refused(form):
    x, mu, r = sample(3, 4)
    with pytest.raises(ValueError, match=r"x: expected .* got requires_grad\. Pass x\.detach"):
        form(x.requires_grad_(), mu, r)


@each_form
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_backward_hides_no_bad_gradient(form, bad):
    x, mu, r = sample(2, 3)
    incoming = torch.ones(2, 3)
    incoming[1, 2] = bad
    d_mu, d_r = torch.autograd.grad(form(x, mu, r), (mu, r), incoming)
    for slope in (d_mu, d_r):
        assert torch.equal(slope.isfinite(), incoming.isfinite())


@each_form
def test_backward_runs_twice_and_inputs_stay_as_they_were(form):
    tensors = sample(5, 7, dtype=torch.float64)
    before = [t.detach().clone() for t in tensors]
    x, mu, r = tensors
    loss = form(x, mu, r).sum()
    first = torch.autograd.grad(loss, (mu, r), retain_graph=True)
    second = torch.autograd.grad(loss, (mu, r))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a, b.detach()) for a, b in zip(before, tensors, strict=True))


@each_form
def test_only_the_gradients_asked_for_come_back(form):
    x, mu, r = sample(3, 4)
    assert torch.autograd.grad(form(x, mu, r.detach()).sum(), mu)[0].shape == mu.shape
    assert torch.autograd.grad(form(x, mu.detach(), r).sum(), r)[0].shape == r.shape
    with torch.no_grad():
        assert not form(x, mu, r).requires_grad


@each_form
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_results_are_float32_or_wider_and_gradients_have_the_inputs_dtype(form, dtype):
    x, mu, r = sample(3, 4, dtype=dtype)
    value = form(x, mu, r)
    d_mu, d_r = torch.autograd.grad(value.sum(), (mu, r))
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert d_mu.dtype == d_r.dtype == dtype
    assert torch.equal(form(x.long(), mu, r), value)


@each_form
def test_autocast_changes_no_bit(form):
    x, mu, r = sample(3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = form(x, mu, r)
    assert torch.equal(value, form(x, mu, r))


class Names(TorchDispatchMode):
    """The operations that a tracer sees."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["nb_log_likelihood", "nb_log_likelihood_from_logs"])
def test_a_tracer_sees_one_operator_and_its_bad_output(name):
    x, mu, r = torch.ones(2), torch.tensor([1.0, math.nan]), torch.ones(2)
    with Names() as names:
        value = getattr(torch.ops.labkit, name)(x, mu, r, False)[0]
    assert names.seen == [f"labkit.{name}.default"]
    assert value.isnan().tolist() == [False, True]
    with Names() as names:
        (nb_log_likelihood if name == "nb_log_likelihood" else nb_log_likelihood_from_logs)(
            x, mu, r
        )
    assert names.seen.count(f"labkit.{name}.default") == 1
    assert len(names.seen) <= 4


@each_form
@pytest.mark.parametrize("shape", [(0,), (0, 5), (1, 1), (1, 5), ()])
def test_empty_and_single_inputs(form, shape):
    x, mu, r = sample(*shape)
    value = form(x, mu, r)
    value.sum().backward()
    assert value.shape == mu.grad.shape == r.grad.shape == shape


extremes = [0.0, 1e-45, 1e-38, 1e-8, 1.0, 5.0, 1e6, 3.4e38, math.inf, math.nan]
counts = st.sampled_from([0.0, 1.0, 2.0, 5.0, 1e5, math.nan])


@settings(max_examples=200, deadline=None)
@given(counts, st.sampled_from(extremes), st.sampled_from(extremes))
def test_every_entry_answers_for_itself(x, mu, r):
    """An extreme entry leaves its neighbours as they are, and gets what it gets alone."""
    alone = nb_log_likelihood(*(torch.tensor([v]) for v in (x, mu, r)))
    beside = nb_log_likelihood(*(torch.tensor([2.0, v, 0.0]) for v in (x, mu, r)))
    usual = nb_log_likelihood(*(torch.tensor([2.0]) for _ in range(3)))
    assert torch.equal(beside[0], usual[0])
    assert torch.equal(beside[1].nan_to_num(nan=7.0), alone[0].nan_to_num(nan=7.0))


logarithms = st.floats(-(2.0**126), 2.0**126, width=32)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 100_000),
    logarithms,
    logarithms,
)
def test_any_finite_logarithms_give_a_number_and_no_positive_one(x, log_mu, log_r):
    log_mu, log_r = (torch.tensor(v, requires_grad=True) for v in (log_mu, log_r))
    value = nb_log_likelihood_from_logs(torch.tensor(float(x)), log_mu, log_r)
    slopes = torch.autograd.grad(value, (log_mu, log_r))
    assert value.item() <= SAME
    assert not any(t.isnan() for t in (value, *slopes))
    if max(abs(log_mu), abs(log_r)) < 80:
        assert all(t.isfinite() for t in (value, *slopes))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=3), st.lists(st.booleans(), min_size=3, max_size=3))
def test_any_shapes_broadcast_as_torch_says(shape, kept):
    r_shape = [n if keep else 1 for n, keep in zip(shape, kept, strict=False)]
    x, mu, r = sample(*shape, r_shape=r_shape)
    value = nb_log_likelihood(x, mu, r)
    value.sum().backward()
    assert value.shape == torch.broadcast_shapes(tuple(shape), tuple(r_shape))
    assert r.grad.shape == r.shape
    whole = r.detach().expand(value.shape).contiguous()
    assert torch.equal(value, nb_log_likelihood(x, mu, whole))
