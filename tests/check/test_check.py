"""The check says "repaired" or "not yet", teaches, and lets nothing through."""

import math
from dataclasses import replace

import pytest
import torch
from toy import Settings, bare, failure, shifted

from labkit import Bench, check
from labkit.probes.verdict import Verdict


def lines(result) -> list[str]:
    return [line[:8] for line in result.lines]


def test_the_library_answer_passes():
    result = check(failure(), shifted)
    assert result
    assert str(result) == "\n".join(
        [
            "repaired",
            "✓ finite: no NaN, no Inf",
            "✓ alive: 1 of 1 gradients",
            "✓ true: agrees with float64",
            "✓ gentle: the healthy run is unchanged, +2 tensor operations",
            "✓ wide: holds at 4 other settings",
        ]
    )


def test_it_reads_the_same_every_time_and_as_its_repr():
    first, second = check(failure(), bare), check(failure(), bare)
    assert str(first) == str(second) == repr(first)


def test_the_cost_is_reported_and_not_judged():
    assert check(failure(), shifted).cost > 0
    assert "cost" not in str(check(failure(), shifted))
    assert math.isnan(check(failure(), bare).cost)


def test_a_function_that_the_broken_case_never_calls_is_still_checked():
    def run(settings, repair=None):
        return failure().run(settings, bare)

    assert check(failure(run=run), shifted).lines[0].startswith("✗ finite: nan: ")


def test_a_bench_stays_where_it_is():
    bench = Bench(failure())
    bench.turn("broken")
    before = bench.settings, bench.repair, bench.reading
    check(bench, shifted)
    assert (bench.settings, bench.repair, bench.reading) == before


def test_a_failure_has_a_name():
    with pytest.raises(ValueError, match=r"failure: expected one of .*; got 'flood'"):
        check("flood", shifted)


def ellipsis(square):
    # One line.
    ...


def raises(square):
    raise NotImplementedError


@pytest.mark.parametrize(
    "stub", [ellipsis, raises, lambda square: ..., lambda square: NotImplemented]
)
def test_a_stub_is_told_so(stub):
    assert str(check(failure(), stub)) == "not yet: write the function first"


def endless(square):
    return endless(square)


def leaves(square):
    raise SystemExit


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (3, "expected a function; got 3"),
        (None, "expected a function; got None"),
        (lambda: 0, "takes 0 positional arguments but 1 was given"),
        (lambda square: 1 / 0, "it stopped with ZeroDivisionError: division by zero"),
        (lambda square: square.root(), "it stopped with AttributeError"),
        (endless, "it stopped with RecursionError"),
        (leaves, "it stopped with SystemExit"),
        (lambda square: square.sum().item(), "it returns float"),
        (lambda square: (square, square), "it returns tuple"),
        (lambda square: square[:2], "it returns float32 (2,)"),
        (lambda square: square.half(), "it returns float16 (4,)"),
        (lambda square: square.clamp_(min=1.0).sqrt(), "it edits its input in place"),
    ],
)
def test_what_does_not_fit_is_said_kindly(mine, words):
    result = check(failure(), mine)
    assert not result
    assert words in result.lines[0]
    assert result.hint


def test_a_call_shows_name_dtype_and_shape():
    assert check(failure(), lambda: 0).hint == "it is called as root(float32 (4,))"
    assert check(failure(), lambda square: square[0]).hint.startswith(
        "root(float32 (4,)) returns float32 (4,)"
    )


def test_nan_in_the_backward_pass():
    result = check(failure(), lambda square: torch.nan_to_num(square.sqrt()))
    assert result.lines[0].startswith("✗ finite: nan: ")
    assert "comes back in the backward pass" in result.hint


def test_a_gradient_that_does_not_arrive():
    result = check(failure(), lambda square: torch.tensor(shifted(square).tolist()))
    assert "✗ alive:" in lines(result)
    assert "cuts the graph" in result.hint


def test_a_gradient_that_is_missing_without_a_verdict():
    def run(settings, repair=None):
        reading = failure().run(settings, repair or shifted)
        lost = tuple(replace(fate, norm=math.nan) for fate in reading.report.parameters)
        blind = replace(reading, report=replace(reading.report, parameters=lost))
        return blind if repair is mine else reading

    def mine(square):
        return shifted(square)

    result = check(failure(run=run), mine)
    assert "✗ alive: no gradient reaches weight" in result.lines
    assert "✗ gentle: a healthy gradient is lost" in result.lines


def test_a_value_that_is_not_true():
    def off(square):
        return shifted(square) * (1.5 if square.dtype == torch.float32 else 1.0)

    assert "✗ true: 50% away from float64" in check(failure(), off).lines


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (lambda square: shifted(square) * 1.01, "✗ gentle: a healthy value changes by 1.0%"),
        (
            lambda square: shifted(square).detach() + 0.9 * (square - square.detach()),
            "✗ gentle: a healthy gradient changes by",
        ),
        (
            lambda square: shifted(square) * (math.nan if square.min() > 0 else 1.0),
            "✗ gentle: the healthy run becomes nan:",
        ),
    ],
)
def test_a_healthy_run_that_changes(mine, words):
    result = check(failure(), mine)
    assert [line for line in result.lines if line.startswith(words)], result


def test_another_setting_that_breaks():
    def narrow(square):
        return shifted(square) * (math.inf if square.max() == 4.0 and square[0] == 4.0 else 1.0)

    result = check(failure(), narrow)
    assert lines(result) == ["✓ finite", "✓ alive:", "✓ true: ", "✓ gentle", "✗ wide: "]
    assert result.lines[-1].startswith("✗ wide: gap=2: inf:")


def test_another_setting_that_stops():
    def late(square):
        if square[0] == 4.0:
            raise ValueError("too far\nsecond line")
        return shifted(square)

    result = check(failure(), late)
    assert result.lines[-1] == "✗ gap=2: it stopped with ValueError: too far"
    assert result.hint == "let it run to its end at every setting"


def test_a_failure_may_demand_more():
    wild = (Settings(gap=2.0), lambda reading: reading.value < 1.0, "keep it short")
    result = check(failure(CHECKS=(wild,)), shifted)
    assert result.lines[-1].startswith("✗ wide: gap=2: healthy")
    assert result.hint == "keep it short"
    calm = (Settings(gap=2.0), Verdict.HEALTHY, "keep it calm")
    assert check(failure(CHECKS=(calm,)), shifted)


def test_a_failure_may_know_a_better_hint():
    own = failure(HINTS={Verdict.NAN: "look at the slope at zero"})
    assert check(own, bare).hint == "look at the slope at zero"


def test_a_failure_may_say_why_the_healthy_run_shall_stay():
    off = lambda square: shifted(square) * 1.01  # noqa: E731
    assert check(failure(CHANGED="count the roots"), off).hint == "count the roots"
    assert "must come out as it went in" in check(failure(), off).hint


def test_settings_where_the_library_breaks_are_not_asked():
    def run(settings, repair=None):
        reading = toy_run(settings, repair)
        return reading if settings.gap < 2 else bad(settings)

    toy_run = failure().run
    bad = lambda settings: toy_run(Settings(gap=0.0))  # noqa: E731
    assert "✓ wide: holds at 3 other settings" in check(failure(run=run), shifted).lines
