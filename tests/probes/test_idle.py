"""Steps that train nothing: they are not healthy, and no parameter is blamed."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit import trace


@pytest.fixture
def made():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)), torch.randn(16, 4)
    return model, lambda: F.mse_loss(model(x), torch.ones(16, 1))


def without(mode, run):
    def step():
        with mode():
            return run()

    return step


def told(report) -> str:
    assert report.verdict == "untrained"
    assert report.culprit is not None
    assert not report.harmed
    card = report.explain()
    assert "alive" not in str(card)
    assert "no parameter was trained" in card.symptom
    assert card.notebook[:2].isdigit()
    return str(report)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_whole_step_without_a_graph_names_the_line(mode, made):
    model, run = made
    report = trace(without(mode, run), model)
    assert told(report).startswith("untrained: no_grad, test_idle.py:")
    assert report.culprit.source == "return model, lambda: F.mse_loss(model(x), torch.ones(16, 1))"
    assert "model.eval()" in report.explain().repair


def test_what_was_frozen_is_told_with_the_line_that_froze_it(made):
    model, run = made

    def step():
        model.requires_grad_(False)  # the culprit
        return run()

    report = trace(step, model)
    assert "all 4 parameters of the model are frozen" in told(report)
    assert report.culprit.source == "model.requires_grad_(False)  # the culprit"
    assert "all 4 parameters" in told(trace(run, model))  # frozen before the trace began


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "None"), ({}, "an empty dict"), ({"accuracy": 0.5}, "a dict with the keys accuracy")],
)
def test_a_step_that_returns_no_loss(value, words, made):
    model, run = made
    report = trace(lambda: (run(), value)[1], model)
    assert told(report) == f"untrained: no backward, the step returned {words}"


def test_an_empty_block_and_one_without_a_backward(made):
    model, run = made
    with trace(model=model) as tracing:
        pass
    assert "nothing ran" in told(tracing.report)
    with trace(model=model) as tracing:
        run()
    assert told(tracing.report) == "untrained: no backward, none ran in the block"


def test_a_model_that_the_step_never_touches(made):
    _, run = made
    where = "untrained: model, test_idle.py:15, in model.0"  # what the step runs in its place
    report = trace(run, nn.Linear(2, 2))
    assert str(report) == f"{where}, the step used none of the 2 parameters of `model`"
    assert {fate.word for fate in report.harmed} == {"not updated"}
    assert trace(run, [made[0], nn.Linear(2, 2)]).verdict == "healthy"  # one of two is used


def test_an_evaluation_that_is_meant_is_no_alarm_and_does_not_boast(made):
    model, run = made
    report = trace(without(torch.no_grad, run), model.eval())
    assert str(report) == "healthy: nothing was trained, for no backward ran (4 parameters)"
    assert "alive" not in str(report.explain())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    assert trace(without(torch.no_grad, run), model, optimizer).verdict == "severed"


def test_a_healthy_card_says_who_is_excused(made):
    model, run = made
    frozen = model[0].requires_grad_(False)
    card = trace(run, model).explain()
    assert card.symptom == "none: every value is finite; 2 of 2 gradients alive"
    frozen.requires_grad_(True)
    spare = nn.ModuleList([model, nn.Linear(2, 2)])
    card = trace(run, spare).explain()
    assert card.symptom == "none: every value is finite; 4 of 6 gradients alive, 2 excused"
    assert "1.weight: not used in the traced steps" in card.cause


def test_a_bad_number_comes_before_idleness():
    model, x = nn.Linear(4, 1), torch.full((2, 4), torch.nan)
    report = trace(without(torch.no_grad, lambda: model(x).mean()), model)
    assert (report.verdict, report.culprit.name) == ("nan", "x")
