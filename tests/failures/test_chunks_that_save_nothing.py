"""What waits for the backward pass, counted to the byte, and what chunks do about it."""

import gc

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from labkit import check
from labkit.bench import Bench
from labkit.failures._held import Held
from labkit.failures._live import Live
from labkit.failures.chunks_that_save_nothing import (
    EXACT,
    FORMS,
    Settings,
    clouds,
    count,
    distances,
    histories,
    loss,
)
from labkit.models.energy import energy_distance_guide

FLOAT = 4  # bytes
SMALL = 0.01  # of the matrix: sums, parameters, and the moved cells


@pytest.fixture
def bench():
    return Bench("chunks_that_save_nothing")


@pytest.mark.parametrize("rows", [500, 1000, 5000, 20000])
@pytest.mark.parametrize("form", ["whole", "chunked", "deleted"])
def test_what_waits_is_the_whole_matrix_for_any_chunk(form, rows):
    n = 20000
    used = count(FORMS[form], Settings(cells=float(n), rows=float(rows)))
    matrices = 2 * n * n * FLOAT  # moved cells to the others, and among themselves
    assert matrices <= used.waiting < matrices * (1 + SMALL)


def test_chunks_save_the_temporaries_and_recomputing_saves_the_rest():
    peaks = {name: count(FORMS[name], Settings(cells=20000.0)).peak for name in FORMS}
    assert peaks["whole"] == pytest.approx(8.0e9, rel=0.01)
    assert peaks["chunked"] == peaks["deleted"] == pytest.approx(3.36e9, rel=0.01)
    assert peaks["recomputed"] == pytest.approx(0.243e9, rel=0.01)


def test_without_gradients_chunks_do_what_the_guide_says():
    whole, chunked = (
        count(FORMS[name], Settings(cells=20000.0, gradient="off")) for name in ("whole", "chunked")
    )
    assert chunked.peak < 0.06 * whole.peak
    assert chunked.waiting < 1e6


def test_doubling_the_cells_doubles_a_recomputed_step_and_quadruples_the_others():
    def growth(form):
        sizes = (count(FORMS[form], Settings(cells=n)).peak for n in (10000.0, 20000.0))
        first, second = sizes
        return second / first

    assert growth("recomputed") == pytest.approx(2, abs=0.05)
    assert growth("chunked") == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("form", FORMS)
def test_tensors_without_numbers_count_as_those_with_numbers(form):
    step = nn.Linear(8, 8)
    x, y = clouds("float32", 500)
    gc.collect()
    with Live() as live:
        loss(step, x, y, 100, FORMS[form]).backward()
    settings = Settings(cells=500.0, rows=100.0)
    assert count(FORMS[form], settings).peak == live.peak


def test_autograd_says_the_same():
    x, y = clouds("float32", 300)
    step = nn.Linear(8, 8)
    held = Held(lambda: loss(step, x, y, 100, FORMS["chunked"]))
    assert held.now >= 2 * 300 * 300 * FLOAT
    recomputed = Held(lambda: loss(step, x, y, 100, FORMS["recomputed"]))
    assert recomputed.now < 0.2 * held.now, "the cells, saved once for each chunk"


def test_a_view_and_a_freed_tensor_are_counted_once_and_not_at_all():
    with Live() as live:
        a = torch.zeros(1000)
        b = a.view(10, 100)[:5]
        assert live.now == 4000
        del a
        assert live.now == 4000, "the view holds it"
        del b
        assert live.now == 0
    assert live.peak == 4000


def test_the_gradient_is_the_same_to_the_bit(bench):
    one, two = (bench.turn("healthy", mean=name, rows=500.0) for name in ("chunked", "recomputed"))
    assert one.value == two.value
    assert [f.norm for f in one.report.parameters] == [f.norm for f in two.report.parameters]


def test_the_verdict_names_the_line_that_holds_it(bench):
    reading = bench.turn("broken")
    assert reading.verdict == "memory"
    assert reading.culprit.function == "chunked"
    assert "cdist" in reading.culprit.source
    assert "3.2 GB wait for backward" in reading.culprit.remark
    assert bench.turn("broken", plan=4.0).verdict == "healthy"
    assert bench.turn("broken", dtype="float64", plan=4.0).verdict == "memory"


def test_the_history_of_a_recomputed_step_is_flat():
    lines = histories(cells=5000, rows=500)
    assert max(lines["recomputed"]) < 0.2 * max(lines["chunked"]) < max(lines["whole"])


def test_the_labs_energy_distance_holds_no_matrix():
    small, large = distances(500), distances(1000)
    assert large["the guide's"] / small["the guide's"] > 3.5
    assert large["labkit's"] / small["labkit's"] < 2
    assert large["labkit's"] < 0.1 * large["the guide's"]


def test_the_guides_whole_distance_needs_more_still():
    x, y = torch.empty(2, 20000, 8, device="meta")
    with Live() as live:
        energy_distance_guide(nn.Linear(8, 8, device="meta")(x), y).backward()
    assert live.peak > 6e9


def smaller(x, y, rows):
    return FORMS["chunked"](x, y, max(rows // 4, 1))


def half(x, y, rows):
    sums = [torch.cdist(p, y, compute_mode=EXACT).half().sum().float() for p in x.split(rows)]
    return torch.stack(sums).sum() / len(x) / len(y)


def sampled(x, y, rows):
    return FORMS["recomputed"](x[::2], y[::2], rows)


def under_no_grad(x, y, rows):
    with torch.no_grad():
        return FORMS["chunked"](x, y, rows)


def one_checkpoint(x, y, rows):
    return checkpoint(FORMS["chunked"], x, y, rows, use_reentrant=False)


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (FORMS["whole"], "autograd keeps"),
        (FORMS["deleted"], "autograd keeps"),
        (smaller, "autograd keeps"),
        (one_checkpoint, "alive at once"),
        (half, "autograd keeps"),
        (sampled, "all pairs count"),
        (under_no_grad, "cuts the graph"),
    ],
)
def test_what_only_looks_like_saving_is_told_why(mine, words):
    result = check("chunks_that_save_nothing", mine)
    assert not result
    assert words in result.hint, result
