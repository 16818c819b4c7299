"""Stats and histograms count everything, in every dtype."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit import trace
from labkit.probes.gradients import Gradients
from labkit.probes.measure import COUNTED, LARGE, glance, measure, respan
from labkit.probes.stats import DECADES, PART, histogram, zeros
from labkit.probes.tape import Tape

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(deadline=None, max_examples=60)
@given(st.lists(FLOATS, min_size=0, max_size=40))
def test_measure_agrees_with_plain_counting(values):
    tensor = torch.tensor(values, dtype=torch.float32)
    stats = measure(tensor)
    finite = [v for v in tensor.tolist() if math.isfinite(v)]
    assert stats.nan == sum(math.isnan(v) for v in values)
    assert stats.pos_inf == sum(v == math.inf for v in tensor.tolist())
    assert stats.neg_inf == sum(v == -math.inf for v in tensor.tolist())
    assert stats.zero == sum(v == 0 for v in finite)
    if finite:
        assert (stats.low, stats.high) == (min(finite), max(finite))
        assert stats.large == max(abs(v) for v in finite)
    if small := [abs(v) for v in finite if v != 0]:
        assert stats.small == min(small)


@settings(deadline=None, max_examples=60)
@given(st.lists(FLOATS, min_size=0, max_size=40))
def test_histogram_leaves_nothing_out(values):
    found = histogram(torch.tensor(values, dtype=torch.float32))
    total = sum(found.decades) + found.nan + found.pos_inf + found.neg_inf + found.zero
    assert total == found.size == len(values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_special_value_has_its_bin(dtype):
    tiny = torch.finfo(dtype).tiny
    special = [math.nan, math.inf, -math.inf, 0.0, -0.0, tiny / 4, 1.0, -30.0]
    found = histogram(torch.tensor(special, dtype=torch.float64).to(dtype))
    wanted = {"NaN": 1, "+Inf": 1, "-Inf": 1, "zero": 2, "subnormal": 1}
    assert found.special == wanted
    assert found.decades[0 - DECADES.start] == 1
    assert found.decades[1 - DECADES.start] == 1


def test_first_bad_entry_of_a_reshaped_view():
    tensor = torch.zeros(3, 4)
    tensor[1, 2] = math.inf
    assert measure(tensor).first_bad == (1, 2)
    assert respan(measure(tensor), (2, 6)).first_bad == (1, 0)


def test_a_sum_that_overflows_is_looked_at_again():
    tensor = torch.full((4,), 3e38)
    assert not glance(tensor).bad
    tensor[2] = math.nan
    assert glance(tensor).nan == 1


def test_large_tensors_admit_what_they_did_not_count():
    big = torch.linspace(-1, 1, 200_000)
    assert not measure(big).counted
    assert measure(big.abs() + 1).counted


@pytest.mark.parametrize("size", [(3, 4), (300, 400)])
def test_the_order_in_memory_changes_no_count(size):
    plain = torch.randn(size, generator=torch.Generator().manual_seed(0))
    plain[1, 2] = 0.0
    sides = {
        "transposed": plain.t(),
        "every other": plain[:, ::2],
        "expanded": plain[:, :1].expand(size),
        "a number, repeated": plain[0, 0].expand(size),
        "turned in three": plain.view(size[0], 2, -1).permute(2, 0, 1),
    }
    for name, view in sides.items():
        assert measure(view) == measure(view.contiguous()), name


def test_a_bad_entry_of_a_transposed_tensor_keeps_its_index():
    tensor = torch.zeros(3, 4)
    tensor[1, 2] = math.nan
    assert measure(tensor.t()).first_bad == (2, 1)


@pytest.mark.parametrize("size", [PART - 1, PART, PART + 1])
def test_histogram_counts_the_same_in_whole_and_broken_parts(size):
    values = torch.full((size,), 3.0)
    values[::3], values[1::3] = 0.0, -0.02
    found = histogram(values)
    assert found.zero == len(range(0, size, 3))
    assert found.decades[-2 - DECADES.start] == len(range(1, size, 3))
    assert found.decades[0 - DECADES.start] == len(range(2, size, 3))
    assert zeros(values) == found.zero


def test_a_gradient_is_shared_by_storage_until_it_is_written_to():
    gradients = Gradients(Tape())
    grad = torch.arange(6.0).reshape(2, 3)
    first = gradients.stats(grad)
    assert gradients.stats(grad.t()) == measure(grad.t(), counted=0)
    assert len(gradients.held) == 1
    grad.mul_(2)
    assert gradients.stats(grad.t()).high == 2 * first.high
    grad[0, 2] = math.nan
    assert gradients.stats(grad).first_bad == (0, 2)
    assert gradients.stats(grad.t()).first_bad == (2, 0)
    gradients.turn()
    assert not gradients.held
    assert not gradients.storages


def test_the_norm_of_a_gradient_neither_overflows_nor_underflows():
    leaf = torch.zeros(300_000, requires_grad=True)
    huge, tiny = torch.tensor(3e30), torch.tensor(3e-30)
    for factor in (huge, tiny):
        report = trace(lambda factor=factor: (leaf * factor).sum())
        assert report.parameters[0].norm == pytest.approx(factor.item() * 300_000**0.5, rel=1e-6)


TURNS = {
    "-x": lambda x: -x,
    "x + 1e-8": lambda x: x + 1e-8,
    "x - 3": lambda x: x - 3,
    "1 - x": lambda x: 1 - x,
    "x * -0.3": lambda x: x * -0.3,
    "x / 7": lambda x: x / 7,
    "x * 1e38": lambda x: x * 1e38,
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("shift", [0.0, 5.0, -5.0])
def test_what_a_number_turns_is_foretold_exactly(turn, dtype, shift):
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(COUNTED + 1, generator=generator) + shift).to(dtype)
    result = TURNS[turn](x)
    ops = [op for op in trace(lambda: TURNS[turn](x)).ops if op.phase == "forward"]
    assert repr(ops[-1].outputs[0]) == repr(measure(result))


RISING = {
    "exp": torch.exp,
    "log": lambda x: torch.log(x.abs() + 0.5),
    "log1p": lambda x: torch.log1p(x.abs()),
    "sqrt": lambda x: x.abs().sqrt(),
    "relu": torch.relu,
    "softplus": torch.nn.functional.softplus,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


@pytest.mark.parametrize("function", RISING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shift", [0.0, 50.0, -500.0])
def test_what_rises_is_foretold_to_one_rounding(function, dtype, shift):
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(COUNTED + 1, generator=generator) + shift).to(dtype)
    want = measure(RISING[function](x))
    ops = [op for op in trace(lambda: RISING[function](x)).ops if op.phase == "forward"]
    found = ops[-1].outputs[0]
    assert (found.word, found.bad, found.counted) == (want.word, want.bad, want.counted)
    rounding = torch.finfo(dtype).eps
    assert (found.low, found.high) == pytest.approx((want.low, want.high), rel=2 * rounding)


def test_the_gradient_of_what_is_subtracted_has_the_other_sign():
    a = torch.linspace(-1.0, 2.0, 50).requires_grad_(True)
    b = torch.linspace(0.0, 1.0, 50).requires_grad_(True)

    def step():
        (a**2 - b**2).pow(3).sum().backward()

    ops = [op for op in trace(step).ops if op.name == "SubBackward0"]
    left, right = ops[0].outputs
    assert (right.low, right.high, right.large) == (-left.high, -left.low, left.large)
    assert left.low != -left.high


@settings(deadline=None, max_examples=60)
@given(st.lists(FLOATS, min_size=1, max_size=12), st.sampled_from([torch.float32, torch.float64]))
def test_many_entries_are_bounded_like_few(values, dtype):
    few = torch.tensor(values, dtype=torch.float32).to(dtype)
    many = measure(few.repeat(LARGE // len(few) + 1).reshape(1, -1).expand(2, -1))
    one = measure(few)
    assert (many.word, many.first_bad and many.first_bad[1]) == (
        one.word,
        one.first_bad and one.first_bad[0],
    )
    if one.large == one.large:
        assert (many.low, many.high, many.large) == (one.low, one.high, one.large)


def test_a_nan_with_a_sign_is_a_nan_among_many():
    signed = torch.tensor([-1], dtype=torch.int32).view(torch.float32)
    assert signed.isnan()
    for others in (torch.ones(LARGE), -torch.ones(LARGE), torch.linspace(-1, 1, LARGE)):
        assert measure(torch.cat([others, signed])).nan == 1


def test_a_view_that_only_turns_the_sign():
    turned = torch.complex(torch.zeros(LARGE), torch.linspace(1, 2, LARGE)).conj().imag
    assert turned.is_neg()
    stats = measure(turned)
    assert (stats.low, stats.high) == (-2.0, -1.0)
