"""Two real processes: a NaN that is shared, a skip that leaves the other waiting, a vote."""

import pytest

from labkit import check
from labkit.bench import Bench
from labkit.failures import one_rank_poisons_all as lab
from labkit.failures._ranks import Ranks, both

WAIT = 1.0  # seconds


@pytest.fixture
def bench():
    return Bench("one_rank_poisons_all")


def train(guard, accident="NaN loss"):
    return both().train(lab.FORMS[guard], accident, WAIT)


def test_a_nan_on_one_rank_is_on_both_after_one_step():
    well, sick = train("take it")
    assert well.losses[0] == pytest.approx(787.3, abs=0.1)
    assert (well.bad, sick.bad) == (12, 12)


def test_the_ranks_are_two_processes():
    pids = {process.pid for process in both().processes}
    assert len(pids) == 2
    assert all(process.poll() is None for process in both().processes)


def test_a_local_skip_averages_steps_that_do_not_belong_together_and_then_waits():
    well, sick = train("skip alone")
    assert (well.done, sick.done) == ([0, 1], [1, 2])
    assert (well.entered["means"], sick.entered["means"]) == (3, 2)
    assert well.late.startswith("step 2: ")
    assert (well.bad, sick.bad) == (0, 0)


def test_a_vote_that_the_sick_rank_does_not_attend_is_no_vote():
    well, sick = train("vote if well")
    assert well.late
    assert (well.entered["votes"], sick.entered["votes"]) == (3, 2)


@pytest.mark.parametrize("accident", ["NaN loss", "NaN gradient"])
def test_an_agreed_skip_keeps_both_in_step(accident):
    well, sick = train("agree", accident)
    assert well.done == sick.done == [1, 2]
    assert (well.bad, sick.bad, well.late, sick.late) == (0, 0, "", "")


def test_without_an_accident_every_guard_takes_the_same_steps():
    losses = {tuple(train(guard, "none")[0].losses) for guard in lab.FORMS}
    assert len(losses) == 1


def test_two_processes_find_what_one_finds_in_float64(bench):
    for case in ("healthy", "repaired"):
        reading = bench.turn(case)
        assert reading.value == pytest.approx(reading.reference, rel=1e-6)  # float32 sums


def test_the_culprit_is_the_line_where_they_meet(bench):
    for case in ("broken", "deadlock"):
        culprit = bench.turn(case).culprit
        assert culprit.op == "all_reduce"
        assert culprit.source.startswith("dist.all_reduce(flat")
    assert "rank 0 came 3 times, rank 1 2 times" in str(bench.reading)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lab.take_it, "got the NaN of the other with the mean"),
        (lab.skip_alone, "one rank did not come to a meeting"),
        (lab.vote_if_well, "`and` stays away when its left side is false"),
        (lambda finite, minimum: bool(minimum(0.0)), "a step was skipped that was well"),
        (lambda finite, minimum: bool(minimum(finite)) or finite, "did not come to a meeting"),
    ],
)
def test_what_only_looks_like_a_guard_is_refused(bench, bad, words):
    result = check(bench, bad)
    assert not result
    assert words in result.hint, result


def test_a_guard_that_raises_leaves_the_ranks_in_order(bench):
    def breaks(finite, minimum):
        raise ZeroDivisionError("a mistake")

    with pytest.raises(ZeroDivisionError, match="a mistake"):
        bench.turn("broken", repair=breaks)
    assert bench.turn("repaired", repair=None).verdict == "healthy"


def test_a_rank_that_dies_is_told_and_both_are_started_anew(bench):
    def kills(finite, minimum):
        both().processes[1].kill()
        both().processes[1].wait()
        return bool(minimum(float(finite)))

    before = both().processes
    with pytest.raises(RuntimeError, match="a rank has died"):
        bench.turn("broken", repair=kills)
    assert all(process.poll() is not None for process in before), "none is left behind"
    assert bench.turn("repaired", repair=None).verdict == "healthy"


def test_a_slow_rank_gets_more_time(monkeypatch):
    waits = []

    def once(self, guard, accident, wait):
        waits.append(wait)
        late = "nobody came" if len(waits) == 1 else ""
        return tuple(lab.Story([1.0], [0], 0, late, {}, None) for _ in range(2))

    monkeypatch.setattr(Ranks, "_once", once)
    assert not any(story.late for story in both().train(lab.agree, "none", WAIT))
    assert waits == [WAIT, 8 * WAIT]
