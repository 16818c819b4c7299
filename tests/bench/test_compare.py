"""The table of forms, folded answers and the progress bar."""

import math

import pytest

from labkit import Bench, answer, compare
from labkit.compare import _digits
from labkit.fold import Fold
from labkit.progress import bar


@pytest.fixture(scope="module")
def bench():
    return Bench("exploding_logvar")


def test_every_form_has_a_row_and_yours_is_last(bench):
    table = compare(bench, yours=lambda logvar: logvar.detach().clamp(-10, 10))
    rows = {row.form: row for row in table.rows}
    assert list(rows) == ["none", "clamp", "straight-through", "yours"]
    assert rows["none"].verdict == "inf"
    assert rows["none"].digits == "none"
    assert rows["clamp"].verdict == "dead"
    assert rows["straight-through"].alive == "12 of 12"
    assert rows["straight-through"].healthy == "unchanged"
    assert rows["yours"].verdict == "severed"


def test_the_table_is_aligned_and_the_bench_stays_where_it_was(bench):
    bench.turn(shift=20.0)
    lines = str(compare(bench)).splitlines()
    start = lines[0].index("verdict")
    assert all(line[start - 2 : start] == "  " for line in lines)
    assert bench.settings.shift == 20.0


@pytest.mark.parametrize(
    ("value", "truth", "digits"),
    [
        (math.inf, 1.0, "none"),
        (math.nan, 1.0, "none"),
        (2.0, 2.0, "all"),
        (1.0002, 1.0, "3"),
        (5.0, 1.0, "0"),
        (0.0, 0.0, "all"),
        (0.001, 0.0, "3"),
    ],
)
def test_digits_that_agree(value, truth, digits):
    assert _digits(value, truth) == digits


def test_the_answer_is_the_library_source_and_stays_folded(bench):
    fold = answer(bench)
    assert "def straight_through" in str(fold)
    assert "def straight_through" not in repr(fold)
    assert fold._repr_html_().startswith("<details><summary>")


def test_a_fold_escapes_what_html_would_eat():
    assert "a &lt; b &amp; c" in Fold("s", "a < b & c")._repr_html_()


def test_the_bar_closes_itself_when_full(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    step = bar(2)
    step(0, 1.5)
    step(epoch=1)
