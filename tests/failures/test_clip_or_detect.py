"""What clipping does to a NaN, to a finite giant and to all others, and what detects in time."""

import math

import pytest
import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from labkit import check
from labkit.bench import Bench
from labkit.failures.clip_or_detect import FORMS, MAX_NORM, courses, each, unscale
from labkit.training.safe_step import gradient_norm

EDGE = math.sqrt(torch.finfo(torch.float32).max)  # 1.8447e19: beyond it the square overflows


@pytest.fixture
def bench():
    return Bench("clip_or_detect")


def gradients(*entries: float) -> list[torch.nn.Parameter]:
    """A healthy parameter, and one with these entries as gradient."""
    parameters = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(len(entries)))]
    parameters[0].grad, parameters[1].grad = torch.tensor([1.0, 2.0, 3.0]), torch.tensor(entries)
    return parameters


def test_clipping_gives_one_nan_to_everybody_and_hides_none():
    parameters = gradients(math.nan, 1.0)
    assert clip_grad_norm_(parameters, 1.0).isnan()
    assert all(p.grad.isnan().all() for p in parameters)


def test_clipping_turns_an_infinity_into_a_nan_and_the_rest_into_zero():
    parameters = gradients(math.inf, 1.0)
    assert clip_grad_norm_(parameters, 1.0).isinf()
    assert parameters[0].grad.tolist() == [0.0, 0.0, 0.0]
    assert parameters[1].grad.isnan().tolist() == [True, False]


@pytest.mark.parametrize(("giant", "zeroed"), [(EDGE * 0.99, False), (EDGE * 1.01, True)])
def test_a_finite_giant_zeroes_everybody_from_the_root_of_the_largest_float(giant, zeroed):
    parameters = gradients(giant, 1.0)
    clip_grad_norm_(parameters, 1.0)
    assert all((p.grad == 0).all() for p in parameters) == zeroed


def test_the_librarys_norm_is_exact_where_torchs_overflows():
    parameters = gradients(1e20, 1.0)
    named = {str(i): p.grad for i, p in enumerate(parameters)}
    assert gradient_norm(named) == (pytest.approx(1e20, rel=1e-6), "")  # 1e20 is no float32


def test_value_clipping_lets_nan_through_and_caps_an_infinity():
    parameters = gradients(math.nan, math.inf)
    clip_grad_value_(parameters, 1.0)
    assert parameters[1].grad.isnan().tolist() == [True, False]
    assert parameters[1].grad[1] == 1.0


def test_the_guide_looks_when_nothing_is_left_to_look_at():
    for form, spoilt in (("guide", 2), ("strict", 1)):
        parameters = gradients(math.nan, 1.0)
        with pytest.raises(RuntimeError):
            FORMS[form](parameters, 1.0, 1.0)
        assert sum(not p.grad.isfinite().all() for p in parameters) == spoilt


@pytest.mark.parametrize(
    ("form", "verdict", "still"),
    [("clip", "dead", 12), ("guide", "dead", 12), ("strict", "frozen", 12), ("wide", "frozen", 8)],
)
def test_every_gradient_of_the_vae_is_finite_and_it_does_not_move(bench, form, verdict, still):
    reading = bench.turn("broken", between=form)
    assert (reading.verdict, len(reading.report.harmed)) == (verdict, still)
    assert reading.culprit.function == form


def test_four_bad_gradients_make_twelve_bad_parameters(bench):
    reading = bench.turn("poisoned")
    assert reading.verdict == "nan"
    assert reading.note == "not finite: 4 gradients, 12 parameters"
    for form in ("guide", "strict", "wide", "each"):
        refused = bench.turn("poisoned", between=form)
        assert (refused.verdict, refused.value) == ("inf", 0.0)
        assert refused.note == "not finite: 4 gradients, 0 parameters"


def test_a_bound_for_each_parameter_starves_nobody(bench):
    reading = bench.turn("repaired")
    assert {fate.word for fate in reading.report.parameters} == {"ok"}
    assert max(fate.norm for fate in reading.report.parameters) <= MAX_NORM * (1 + 1e-6)


def test_clipping_before_unscaling_shrinks_the_step(bench):
    reading = bench.turn("scaled")
    assert reading.verdict == "wrong"
    assert reading.value == pytest.approx(MAX_NORM / 2**16, rel=1e-4)
    assert bench.turn("scaled", between="strict").verdict == "healthy"


def test_only_a_step_that_is_taken_brings_the_run_home():
    paths = courses(steps=30)
    assert paths["strict"][-1] == paths["strict"][0] > 50  # refused, for ever
    assert 15 < paths["wide"][-1] < 40  # measured 23.9
    assert paths["each"][-1] < 5  # measured -3.2


def no_step(parameters, max_norm, scale):
    return math.nan


def zeroes(parameters, max_norm, scale):
    for p in parameters:
        p.grad.zero_()
    return 0.0


def replaces(parameters, max_norm, scale):
    for p in parameters:
        p.grad.nan_to_num_()
    return each(parameters, max_norm, scale)


def clips_values(parameters, max_norm, scale):
    unscale(parameters, scale)
    clip_grad_value_(parameters, max_norm)
    return 1.0


def unscales_late(parameters, max_norm, scale):
    norm = each(parameters, max_norm, 1.0)
    unscale(parameters, scale)
    return norm


def each_in_float32(parameters, max_norm, scale):
    unscale(parameters, scale)
    return sum(float(clip_grad_norm_([p], max_norm)) for p in parameters)


def looks_at_nothing(parameters, max_norm, scale):
    each(parameters, max_norm, scale)
    return max_norm


def tells_what_is_left(parameters, max_norm, scale):
    each(parameters, max_norm, scale)
    return max(p.grad.double().norm().item() for p in parameters)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (FORMS["clip"], "Square in float64"),
        (FORMS["guide"], "Square in float64"),
        (FORMS["strict"], "Square in float64"),
        (FORMS["wide"], "Give each parameter its own norm"),
        (lambda parameters, max_norm, scale: 1.0, "longer than the bound"),
        (no_step, "Give each parameter its own norm"),
        (zeroes, "Square in float64"),
        (replaces, "a gradient was not finite, and a step was taken"),
        (clips_values, "longer than the bound"),
        (unscales_late, "Unscale first"),
        (each_in_float32, "Square in float64"),
        (looks_at_nothing, "a gradient was not finite, and a step was taken"),
        (tells_what_is_left, "Return what you found before you clip"),
    ],
)
def test_what_only_looks_like_a_repair_is_refused(bad, told):
    result = check("clip_or_detect", bad)
    assert not result
    assert told in result.hint, result


@pytest.mark.parametrize("tell", [max, sum])
def test_any_norm_of_what_came_is_a_good_answer(tell):
    def form(parameters, max_norm, scale):
        unscale(parameters, scale)
        norms = [p.grad.double().norm().item() for p in parameters]
        each(parameters, max_norm, 1.0)
        return tell(norms)

    assert check("clip_or_detect", form)
