"""The bench alone, on a failure made for the test: knobs, cases, errors, listeners, code."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from labkit.bench import Bench, Knob, Reading, choice, dial, knobs_of
from labkit.probes.report import Report
from labkit.probes.verdict import Verdict, worst


@dataclass(frozen=True)
class Settings:
    size: float = dial(0.0, -1.0, 1.0, 0.1, "nats", "how far")
    form: str = choice("plain", ("plain", "capped"), "which form")


def plain(size):
    return size


def run(settings, repair=None):
    value = (repair or plain)(settings.size)
    verdict = Verdict.NAN if value > 0.5 else Verdict.HEALTHY
    report = Report(verdict, None, (), (), (), (), (value,))
    return Reading(settings, verdict, report, value, value)


TOY = SimpleNamespace(
    __name__="labkit.failures.toy",
    Settings=Settings,
    FORMS={"plain": plain, "capped": lambda size: min(size, 0.5)},
    FORM_KNOB="form",
    CASES={"healthy": Settings(), "broken": Settings(size=1.0)},
    run=run,
)


@pytest.fixture
def bench():
    return Bench(TOY)


def test_a_case_and_a_knob_both_go_through_the_one_door(bench):
    assert bench.turn("broken").verdict == "nan"
    assert bench.turn(size=0.0).verdict == "healthy"
    assert bench.settings == Settings()


def test_knobs_that_are_not_named_stay_where_they_are(bench):
    bench.turn(form="capped")
    assert bench.turn(size=0.3).settings == Settings(size=0.3, form="capped")


def test_a_repair_stays_until_it_is_taken_back(bench):
    assert bench.turn("broken", repair=lambda size: 0.0).verdict == "healthy"
    assert bench.turn("broken").verdict == "healthy"
    assert bench.turn(repair=None).verdict == "nan"


def test_a_form_that_is_asked_for_by_name_takes_the_place_of_a_repair(bench):
    bench.turn("broken", repair=lambda size: 0.0)
    assert bench.turn(size=0.6).verdict == "healthy", "a knob leaves it where it is"
    assert bench.turn(form="plain").verdict == "nan"
    assert bench.repair is None
    kept = lambda size: 0.0  # noqa: E731
    bench.turn("broken", repair=kept, form="plain")
    assert bench.repair is kept, "both by name: the function is what was asked for"


def test_the_case_repaired_is_the_librarys():
    bench = Bench("exploding_logvar")
    bench.turn("broken", repair=lambda logvar: logvar)
    assert bench.turn("repaired").verdict == "healthy"
    assert bench.repair is None


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (lambda b: b.turn("sick"), "expected one of healthy, broken; got 'sick'"),
        (lambda b: b.turn(siez=1), "expected one of size, form; got siez"),
        (lambda b: b.turn(size=2), "expected -1 to 1 nats; got 2"),
        (lambda b: b.turn(size="big"), "expected a number; got 'big'"),
        (lambda b: b.turn(size=float("nan")), "expected a number; got nan"),
        (lambda b: b.turn(size=True), "expected a number; got True"),
        (lambda b: b.turn(form="round"), "expected one of plain, capped; got 'round'"),
        (lambda b: b.turn(repair=3), "expected a function or None; got 3"),
        (lambda b: b.sweep("siez"), "expected one of size, form; got siez"),
        (lambda b: Bench("no_such_failure"), "failure: expected one of"),
    ],
)
def test_bad_input_says_what_was_expected_and_what_came(bench, turn, words):
    before = bench.settings
    with pytest.raises(ValueError, match="expected") as error:
        turn(bench)
    assert words in str(error.value)
    assert bench.settings == before


def test_a_turn_that_fails_leaves_the_bench_where_it_was(bench):
    bench.turn("healthy")
    with pytest.raises(ZeroDivisionError):
        bench.turn("broken", repair=lambda size: 1 / 0)
    assert bench.settings == Settings()
    assert bench.repair is None


def test_listeners_hear_every_turn_until_they_leave(bench):
    heard = []
    leave = bench.watch(heard.append)
    bench.turn("broken")
    leave()
    leave()
    bench.turn("healthy")
    assert [reading.verdict for reading in heard] == ["nan"]


def test_the_code_line_reproduces_the_setting(bench):
    bench.turn("broken", form="capped")
    assert bench.code() == "Bench('toy').turn(size=1.0, form='capped')"


def test_a_sweep_moves_nothing(bench):
    readings = bench.sweep("size", 5)
    assert [reading.settings.size for reading in readings] == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert [reading.verdict for reading in readings] == ["healthy"] * 4 + ["nan"]
    assert bench.settings == Settings()
    assert bench.reading is None


def test_a_grid_lies_exactly_on_the_step():
    knob = knobs_of(Settings)["size"]
    assert knob.grid(21) == tuple(round(-1 + 0.1 * i, 10) for i in range(21))
    assert knob.grid(1) == (-1.0,)
    assert Knob("k", "a", "", options=("a", "b")).grid(9) == ("a", "b")


def test_verdicts_are_ordered_and_closed():
    assert worst([]) == "healthy"
    assert worst([Verdict.INF, Verdict.DEAD, Verdict.NAN]) == "nan"
    with pytest.raises(ValueError, match="sick"):
        Verdict("sick")
