"""Where each operation leaves the floats, to the bit, and what the guide's guards leave."""

import itertools
import math

import pytest
import torch
from mpmath import mp

from labkit import check
from labkit.bench import Bench
from labkit.failures._edges import spans
from labkit.failures.risky_operations import FORMS, beside, edges, function, profile, risks

EXP = {"float16": 11.09375, "bfloat16": 89.0, "float32": 88.7228394, "float64": 709.782712893384}
ULPS = 2  # by which another machine's exp or lgamma may move an edge


@pytest.fixture
def bench():
    return Bench("risky_operations")


@pytest.mark.parametrize("dtype", EXP)
def test_exp_overflows_at_the_log_of_the_largest_number(dtype):
    kind, last = getattr(torch, dtype), risks("exp", dtype)[-1]
    assert last.value == "Inf"
    assert last.low == pytest.approx(EXP[dtype], rel=ULPS * torch.finfo(kind).eps)
    mp.dps = 30
    edge = mp.log(mp.mpf(torch.finfo(kind).max))
    before = torch.tensor(last.low, dtype=kind).nextafter(torch.tensor(0.0, dtype=kind)).item()
    spacing = last.low - before
    assert before - ULPS * spacing <= edge <= last.low + ULPS * spacing


def word(t):
    value = t.item()
    if math.isfinite(value):
        return "finite" if value else "zero"
    return "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf"


@pytest.mark.parametrize("op", ["log", "division", "bmm", "length"])
def test_each_end_is_in_its_state_and_next_to_the_other(op):
    found = edges(op)
    for span in found:
        for x in (span.low, span.high):
            t = torch.tensor([x], requires_grad=True)
            y = function(op)(t)
            (slope,) = torch.autograd.grad(y.sum(), t)
            assert (word(y), word(slope)) == (span.value, span.gradient), (op, x)
    for one, two in itertools.pairwise(found):
        low, high = torch.tensor(one.high), torch.tensor(two.low)
        assert low.nextafter(high) == high
        assert (one.value, one.gradient) != (two.value, two.gradient)


@pytest.mark.parametrize("op", ["exp", "division", "log", "length"])
def test_bisection_finds_what_a_look_at_every_float_finds(op, monkeypatch):
    whole = spans(function(op), torch.float16)
    monkeypatch.setattr("labkit.failures._edges.GRID", 4)  # several states in one cell
    monkeypatch.setattr("labkit.failures._edges.EVERY", 0)
    assert spans(function(op), torch.float16) == whole


@pytest.mark.parametrize(
    ("op", "x", "value", "gradient"),
    [
        ("log", 0.0, -math.inf, "Inf"),  # the guide: NaN
        ("division", 0.0, math.inf, "-Inf"),  # the guide: NaN
        ("lgamma", -0.5, 1.2655, "finite"),  # the guide: NaN
        ("lgamma", -1.0, math.inf, "NaN"),
        ("sqrt", 0.0, 0.0, "Inf"),
        ("acos", 1.0, 0.0, "-Inf"),
        ("x log x", 0.0, 0.0, "NaN"),
        ("cube root", 0.0, 0.0, "Inf"),
        ("tanh", 9.5, 1.0, "zero"),
        ("log of sigmoid", 20.0, 0.0, "zero"),
    ],
)
def test_one_point(op, x, value, gradient):
    assert function(op)(torch.tensor([x])).item() == pytest.approx(value, abs=1e-4)
    (here,) = [span for span in edges(op) if span.low <= x <= span.high]
    assert here.gradient == gradient


@pytest.mark.parametrize(
    ("dtype", "value", "gradient"),
    [("float16", 1.5259e-05, 0.00390625), ("float32", 2.9387e-39, 5.42101e-20)],
)
def test_the_gradient_of_a_quotient_overflows_at_the_root_of_where_the_value_does(
    dtype, value, gradient
):
    found = [span for span in risks("division", dtype) if span.high > 0]
    assert found[0].high == pytest.approx(value, rel=1e-3)
    assert (found[1].value, found[1].gradient) == ("finite", "-Inf")
    assert found[1].high == pytest.approx(gradient, rel=1e-5)


@pytest.mark.parametrize(
    ("op", "dtype", "edge"),
    [
        ("bmm", "float16", 45.25),
        ("bmm", "float32", 3.26095e18),
        ("square", "float16", 256.0),
        ("square", "float32", 1.84467e19),
        ("length", "float32", 1.84467e19),
        ("lgamma", "float16", 8184.0),
        ("lgamma", "float32", 4.0371e36),
    ],
)
def test_first_infinity_above(op, dtype, edge):
    first = next(s for s in risks(op, dtype) if s.value == "Inf" and s.low > 0)
    assert first.low == pytest.approx(edge, rel=1e-3)


def test_every_guard_of_the_guide_lets_something_through():
    def left(op, dtype="float32"):
        return [(s.value, s.gradient) for s in risks(op, dtype, "guide")]

    assert left("exp") == [("finite", "zero")] * 2
    assert ("NaN", "finite") in left("log")
    assert ("-Inf", "Inf") in left("log"), "at minus eps"
    assert ("-Inf", "Inf") in left("log", "float16"), "1e-8 is 0"
    assert ("Inf", "-Inf") in left("division"), "at minus eps"
    assert ("zero", "Inf") in left("sqrt")
    assert ("Inf", "finite") in left("lgamma")
    assert ("Inf", "finite") in left("bmm")
    assert "clamp to [-10, 10]" in beside("exp")


def test_the_tracer_names_the_square(bench):
    culprit = bench.turn("broken").culprit
    assert culprit.function == "root"
    assert "square()" in culprit.source
    assert bench.turn("gradient only").culprit.phase == "backward"


@pytest.mark.parametrize("x", [3e38, 1.5, 1e-38, 1e-45, -2e19])
def test_the_scaled_length_holds_from_end_to_end(x):
    t = torch.tensor([[x, 0.0]], requires_grad=True)
    y = FORMS["scaled"](t)
    (slope,) = torch.autograd.grad(y.sum(), t)
    assert y.item() == abs(t[0, 0].item())
    assert slope[0, 0].item() == pytest.approx(math.copysign(1, x))


def test_a_curve_has_a_gap_where_nothing_is_finite():
    lines = profile("division", [1.0, 1e-25])
    assert lines["value"] == pytest.approx([0.0, 25.0])
    assert lines["gradient"][0] == 0
    assert math.isnan(lines["gradient"][1])


@pytest.mark.parametrize(
    "mine",
    [
        FORMS["guide"],
        FORMS["eps"],
        FORMS["norm"],
        lambda x: x.double().square().sum(-1).sqrt().to(x.dtype),
        lambda x: x.clamp(-1e19, 1e19).square().sum(-1).sqrt(),
        lambda x: x.abs().sum(-1),
        lambda x: x.abs().amax(-1) * (x / x.abs().amax(-1, keepdim=True)).square().sum(-1).sqrt(),
    ],
)
def test_what_only_looks_like_a_length_is_told_why(mine):
    result = check("risky_operations", mine)
    assert not result
    assert "the square must be near 1 in size" in result.hint or "as it went in" in result.hint


def test_hypot_scales_and_has_no_gradient_at_zero():
    result = check("risky_operations", lambda x: torch.hypot(x[:, 0], x[:, 1]))
    assert "at 0 the root has no slope" in result.hint


def test_any_unit_will_do():
    def mine(x):
        unit = x.abs().amax(-1, keepdim=True)
        unit = torch.where(unit == 0, 1, unit)
        return unit[:, 0] * torch.linalg.vector_norm(x / unit, dim=-1)

    assert check("risky_operations", mine)
