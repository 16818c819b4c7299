"""Every case shows its symptom, its key is right, its repair passes, and wrong answers teach."""

import math
import subprocess
import sys

import pytest
import torch

from labkit import news
from labkit.whodunit import Case, key
from labkit.whodunit.case import BUDGET
from labkit.whodunit.faults import BY_NAME, FAULTS
from labkit.whodunit.judge import CULPRIT, LINE
from labkit.whodunit.probes import PRICES
from labkit.whodunit.running import healthy_text, kept, number_of, swapped
from labkit.whodunit.seeds import fault_of, seed_of

LEAST = 20  # cases that differ
NOT_FINITE = (
    "empty softmax", "root of zero", "no floor", "log of nothing", "exponent without a cap",
    "half the numbers",
)  # fmt: skip
STILL = (
    "a copy from a list", "a large eps", "clipped to nothing", "cleared too late",
)  # fmt: skip
each_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)


def case_of(fault) -> Case:
    return Case(seed_of(fault.name))


def line_of(fault) -> int:
    return number_of(swapped(healthy_text(), fault.line, fault.changed), fault.changed)


def test_there_are_enough_and_each_changes_one_line():
    assert len(FAULTS) == len(BY_NAME) >= LEAST
    for fault in FAULTS:
        changed = swapped(healthy_text(), fault.line, fault.changed).splitlines()
        pairs = zip(healthy_text().splitlines(), changed, strict=True)
        assert sum(a != b for a, b in pairs) == 1


def test_the_program_itself_is_well():
    course = kept(healthy_text())
    assert not course.stopped
    assert all(math.isfinite(value) for row in course.rows for value in row.values())
    assert course.losses[-1] < course.losses[0] - 5.0
    case = Case(seed_of("root of zero"))
    case._text = healthy_text()
    assert case.trace(2).startswith("healthy: 9 of 9")


@each_fault
def test_a_case_shows_its_symptom(fault):
    today, yesterday = kept(case_of(fault)._text), kept(healthy_text())
    assert today.log() != yesterday.log()
    assert today.log() in repr(case_of(fault))
    assert math.isfinite(today.losses[-1]) != (fault.name in NOT_FINITE)
    if fault.name in STILL:
        assert today.losses[-1] > yesterday.losses[0] - 1.0, "nothing was learnt"


@each_fault
def test_the_key_is_right(fault):
    told = key(seed_of(fault.name))
    number = line_of(fault)
    assert f"line {number}, {fault.name}" in told
    assert fault.notebook in told
    for word in fault.culprits:
        found = case_of(fault).accuse(number, word)
        assert found.passed, word
        assert found.points == LINE + CULPRIT


def test_the_name_of_the_result_is_no_culprit():
    poisoned = next(fault for fault in FAULTS if fault.name == "poisoned statistics")
    assert not case_of(poisoned).accuse(line_of(poisoned), "kept").passed


@each_fault
def test_the_old_line_repairs_it(fault):
    case = case_of(fault)
    assert case.accuse(line_of(fault), fault.culprits[0]).passed
    result = case.repair(line_of(fault), fault.line)
    assert result.passed, result
    assert case.score == 100
    assert "found, repaired" in case.line()


@each_fault
def test_what_is_no_repair_is_refused(fault):
    case, number = case_of(fault), line_of(fault)
    unrepaired = case.repair(number, fault.changed)
    assert not unrepaired.passed
    assert any(line.startswith("✗ ") and ":" in line for line in unrepaired.lines)
    assert not case.repair(number, "pass").passed
    assert case.score < 50


@each_fault
def test_every_probe_tells_something(fault):
    case = case_of(fault)
    case.spent = -1000
    probes = [
        case.batch(), case.outputs("forward", 1), case.state(2), case.moved(), case.gradients(1),
        case.slope("query"), case.read("weights"), case.trace(2),
    ]  # fmt: skip
    assert all(probes)
    assert len(set(probes)) == len(PRICES)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("root of zero", "distance = (difference.square().sum(-1) + 1e-12).sqrt()"),
        ("empty softmax", "score = score.masked_fill(~there, -1e9)"),
        ("log of nothing", "target = torch.log(hours + 1.0)"),
        ("gradients add up", "net.zero_grad()"),
        ("clipped to nothing", "norm = nn.utils.clip_grad_norm_(net.parameters(), max_norm=10)"),
    ],
)
def test_another_repair_that_is_one_passes(name, code):
    assert case_of(BY_NAME[name]).repair(line_of(BY_NAME[name]), code).passed


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("root of zero", "distance = difference.square().sum(-1).sqrt().nan_to_num()", "✗ finite"),
        ("root of zero", "distance = difference.abs().sum(-1)", "✗ true: the loss of step 0"),
        ("log of nothing", "target = torch.log(hours).clamp(min=0.0)", "✗ true"),
        ("empty softmax", "score = score.masked_fill(~there, 0.0)", "✗ true"),
        ("dead clamp", "log_spread = self.spread(known).squeeze(-1).detach()", "✗ alive: severed"),
        (
            "learning rate",
            "optimizer = torch.optim.Adam(net.parameters(), lr=0.0)",
            "✗ true: the loss of step 1",
        ),
        ("no floor", "return x / (", "not Python"),
        ("no floor", "return nothing", "stopped with NameError"),
        ("no floor", "a = 1\nreturn a", "one line"),
    ],
)
def test_a_wrong_repair_is_told_why(name, code, words):
    result = case_of(BY_NAME[name]).repair(line_of(BY_NAME[name]), code)
    assert not result.passed
    assert words in str(result)


def test_a_wrong_accusation_costs_and_points_somewhere():
    fault = BY_NAME["root of zero"]
    case = case_of(fault)
    right = line_of(fault)
    assert "You are in the right function: crowd" in str(case.accuse(right + 1, "exp"))
    assert "stands later in the file" in str(case.accuse(20, "seed"))
    assert "stands earlier in the file" in str(case.accuse(100, "clip"))
    assert "expected 1 to" in str(case.accuse(0, "sqrt"))
    assert case.wrong == 4
    assert "name the call" in str(case.accuse(right, "vector_norm"))
    assert case.wrong == 4, "the line is right"
    case.accuse(right, "SQRT()")
    case.accuse(1, "import")
    assert (case.wrong, case.found.points) == (4, LINE + CULPRIT), "the best answer stays"


def test_probes_cost_and_the_budget_ends():
    case = case_of(BY_NAME["root of zero"])
    assert case.trace() is case.trace(), "what was bought stays"
    assert case.spent == PRICES["trace"]
    with pytest.raises(ValueError, match="expected one of"):
        case.read("sqrt")
    with pytest.raises(ValueError, match=r"parameter: expected one of query, embed\.weight"):
        case.slope("bias")
    assert case.spent == PRICES["trace"], "an error costs nothing"
    case.read("crowd"), case.read("fit")
    assert "batch costs 1 and 0 are left" in case.batch()
    assert case.spent == BUDGET
    case.accuse(line_of(BY_NAME["root of zero"]), "sqrt")
    case.repair(line_of(BY_NAME["root of zero"]), BY_NAME["root of zero"].line)
    assert case.score == 85


def test_the_tracer_names_the_line_of_a_nan():
    fault = BY_NAME["root of zero"]
    assert f"training.py:{line_of(fault)}, in crowd" in case_of(fault).trace()


def test_a_function_may_play():
    fault = BY_NAME["root of zero"]

    def mine(case):
        assert "NaN" in case.gradients()
        return line_of(fault), "sqrt", fault.line

    told = case_of(fault).check(mine)
    assert told.endswith("found, repaired, probes 3 of 20, wrong accusations 0")
    assert case_of(fault).check(lambda case: ...) == "not yet: write the function first"
    assert "expected (line, culprit, code)" in case_of(fault).check(lambda case: 75)


def test_a_seed_is_the_same_case_for_everybody_and_all_faults_come_up():
    assert {fault_of(seed).name for seed in range(len(FAULTS))} == set(BY_NAME)
    assert {fault_of(seed).name for seed in range(len(FAULTS), 2 * len(FAULTS))} == set(BY_NAME)
    assert repr(Case(3)) == repr(Case(3))
    for seed in (-1, 1.5, True, "3"):
        with pytest.raises(ValueError, match="whole number"):
            Case(seed)


def test_symptoms_and_prices_are_told_and_no_culprit():
    for seed in range(len(FAULTS)):
        told = repr(Case(seed))
        assert fault_of(seed).changed not in told
        assert fault_of(seed).name not in told
        assert "trace 10" in told


def test_playing_leaves_the_random_numbers_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    case = Case(0)
    repr(case), case.gradients(), case.repair(1, "import torch")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_solved_case_is_news(monkeypatch):
    heard = []
    monkeypatch.setattr(news, "listeners", [lambda *event: heard.append(event)])
    fault = BY_NAME["weights detached"]
    case = case_of(fault)
    case.repair(line_of(fault), fault.line)
    assert heard == [], "no accusation yet"
    case.accuse(line_of(fault), "detach")
    case.repair(line_of(fault), fault.line)
    assert heard[0][:2] == ("solved", "whodunit")
    assert heard[0][2]["score"] == 100


def test_giving_up_shows_the_line():
    assert "was: target = torch.log1p(hours)" in case_of(BY_NAME["log of nothing"]).give_up()


def test_the_key_as_a_command():
    command = [sys.executable, "-m", "labkit.whodunit", "0", "2"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.strip() == key(range(2))
