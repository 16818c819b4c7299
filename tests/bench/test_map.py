"""Failure maps of a toy: every change found to one step, stored and read again, and no lie."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from labkit import maps
from labkit.bench import Bench, Reading, choice, dial
from labkit.probes.report import Report
from labkit.probes.verdict import Verdict


@dataclass(frozen=True)
class Settings:
    size: float = dial(0.0, -1.0, 1.0, 0.1, "nats", "how far")
    load: float = dial(0.0, 0.0, 4.0, 1.0, "", "how much")
    form: str = choice("plain", ("plain", "capped"), "which form")


def verdict_at(size, load):
    """NaN beyond 0.43 and, in a narrow band that no grid hits, Inf."""
    if size > 0.43:
        return Verdict.NAN
    return Verdict.INF if load == 2 and 0.15 < size < 0.25 else Verdict.HEALTHY


def run(settings, repair=None):
    size = min(settings.size, 0.0) if settings.form == "capped" else settings.size
    size = repair(size) if repair else size
    verdict = verdict_at(size, settings.load)
    return Reading(settings, verdict, Report(verdict, None, (), (), (), (), (size,)), size, size)


@pytest.fixture
def toy(tmp_path):
    return SimpleNamespace(
        __name__="labkit.failures.toy",
        __file__=str(tmp_path / "toy.py"),
        __hash__=None,
        Settings=Settings,
        FORMS={"plain": None, "capped": None},
        FORM_KNOB="form",
        CASES={"healthy": Settings(), "broken": Settings(size=1.0)},
        MAP={"size": (-1, 0, 0.5, 1), "load": (0, 2)},
        run=run,
    )


@pytest.fixture
def failure(toy):
    """The toy as something that a cache can hold, as a module is."""
    module = type("Module", (), {})()
    module.__dict__.update({k: v for k, v in vars(toy).items() if k != "__hash__"})
    return module


def test_every_change_is_found_to_one_step_of_the_knob(failure):
    bench = Bench(failure)
    found = bench.map("size", "load", (-1, 0, 0.5, 1), (0, 2))
    assert found.rows[0] == ((-1.0, "healthy"), (0.5, "nan"))
    # halving 0 … 0.5 meets the band at 0.2, and so finds both of its ends
    assert found.rows[1] == ((-1.0, "healthy"), (0.2, "inf"), (0.3, "healthy"), (0.5, "nan"))
    assert found.verdicts[1] == ("healthy", "healthy", "nan", "nan")
    assert bench.settings == Settings()
    assert bench.reading is None


def test_options_are_an_axis_too(failure):
    found = Bench(failure).map("form", "size", ys=3)
    assert found.ys == (-1.0, 0.0, 1.0)
    assert found.verdicts == (("healthy",) * 2, ("healthy",) * 2, ("nan", "healthy"))


def test_a_map_is_stored_for_every_option_and_read_for_the_present_one(failure):
    kept = json.loads(maps.rebuild(failure).read_text())
    assert list(kept["maps"]) == ["form plain", "form capped"]
    bench = Bench(failure)
    assert "nan" in bench.map().verdicts[0]
    bench.turn(form="capped", size=0.3)
    assert {word for row in bench.map().verdicts for word in row} == {"healthy"}
    assert bench.map().settings.size == 0.3


def test_with_a_repair_on_the_bench_the_map_is_measured(failure):
    maps.rebuild(failure)
    bench = Bench(failure)
    bench.turn(repair=lambda size: 0.0)
    assert {word for row in bench.map().verdicts for word in row} == {"healthy"}


def test_a_stored_map_that_lies_is_found(failure):
    path = maps.rebuild(failure)
    assert maps.disagreements(failure, count=40) == []
    path.write_text(path.read_text().replace("[0.5, ", "[-0.9, "))
    maps._read.cache_clear()
    assert any("the map says nan, a run says healthy" in line for line in
               maps.disagreements(failure, count=40))  # fmt: skip


@pytest.mark.parametrize(
    "axes", [("size", "size"), ("size", "weight"), ("", "size")], ids=lambda axes: "-".join(axes)
)
def test_a_map_needs_two_knobs(failure, axes):
    with pytest.raises(ValueError, match="expected two knobs out of size, load, form; got"):
        Bench(failure).map(*axes)


def test_without_a_declared_map_the_knobs_must_be_named(failure):
    del failure.MAP
    with pytest.raises(ValueError, match="expected two knobs"):
        Bench(failure).map()


def test_a_map_that_was_not_measured_since_it_changed_is_an_error(failure):
    with pytest.raises(ValueError, match=r"expected rows for load 0.0, 2.0; got none. Measure it"):
        Bench(failure).map()
    maps.rebuild(failure)
    failure.MAP = {"size": (-1, 1), "load": (0, 1, 2)}
    with pytest.raises(ValueError, match=r"got 0.0, 2.0. Measure it anew"):
        Bench(failure).map()


def test_a_value_out_of_range_is_an_error(failure):
    with pytest.raises(ValueError, match="expected -1 to 1 nats; got 7"):
        Bench(failure).map("size", "load", (0, 7), 2)
