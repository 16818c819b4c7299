"""What each way of reading gradients sees of a gate that never learns, and what it does not."""

import io
from contextlib import redirect_stdout

import pytest
import torch

from labkit import check, trace
from labkit.bench import Bench
from labkit.claims.gradient_tools import told
from labkit.draw.torchviz_graph import draw_torchviz
from labkit.failures.reading_gradients import FORMS, GENES, Gated, cells, encoded, loss, step
from labkit.guide import check_gradient_flow

SAME_NORM = 0.01  # the scores carry 0.1 % of the total gradient norm
SAME_SLOPE = 1e-6  # relative: one multiplication in float32


@pytest.fixture
def bench():
    return Bench("reading_gradients")


def backward(*options):
    model, value = step(*options)
    value.backward()
    return model, float(value.detach())


def total(model) -> float:
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(grads))


def test_none_and_zero_are_told_apart(bench):
    assert bench.turn("broken").verdict == "dead"
    assert bench.reading.culprit.op == "RoundBackward0"
    assert bench.turn("severed").verdict == "severed"
    assert bench.reading.culprit.op == "gt"
    assert backward("round")[0].score.grad.count_nonzero() == 0
    assert backward("compare")[0].score.grad is None


def test_loss_and_total_norm_tell_nothing():
    good, value = backward("straight-through")
    for form in ("round", "compare"):
        bad, same = backward(form)
        assert same == value
        assert total(bad) == pytest.approx(total(good), rel=SAME_NORM)


def test_one_living_gate_hides_the_others_from_a_largest_entry(bench):
    model, _ = backward("round", 1)
    assert told(model.score.grad) == "normal"
    assert int(model.score.grad.count_nonzero()) == 1
    reading = bench.turn("spared")
    assert reading.verdict == "dead"
    assert reading.culprit.function == "rounded"
    assert "of 744 gates hear nothing" in str(reading)
    assert bench.turn("broken", spared=500).verdict == "healthy", "most gates hear something"


def test_a_learners_cut_is_blamed_where_it_is(bench):
    def mine(score):
        return torch.sigmoid(score).detach().round()

    reading = bench.turn("broken", repair=mine, spared=1)
    assert reading.culprit.op == "detach"


def test_a_scaled_loss_is_no_fault(bench):
    model, _ = backward("straight-through", 0, -12.0)
    assert told(model.score.grad) == "near zero"
    assert bench.turn("scaled").verdict == "healthy"
    with redirect_stdout(io.StringIO()):
        assert "normal" in str(check_gradient_flow(model)["score"])


def test_torchviz_drops_what_is_cut_and_draws_what_is_dead():
    alt = draw_torchviz(compare=encoded("compare"), round=encoded("round")).labkit_alt
    cut, dead = alt.split(" boxes, leaves ")[1:]
    assert "score" not in cut
    assert "score" in dead


def test_a_parameter_that_no_optimizer_holds_is_frozen():
    model = Gated(FORMS["straight-through"])
    forgotten = torch.optim.SGD(model.vae.parameters(), 1e-3)
    report = trace(lambda: loss(model, cells()), model, forgotten)
    assert report.verdict == "frozen"
    assert report.culprit.name == "score" or "score" in str(report)


def test_the_library_gate_has_the_step_and_the_slope():
    score = torch.linspace(-3, 3, 25, requires_grad=True)
    gate = FORMS["straight-through"](score)
    assert torch.equal(gate.detach(), (score.detach() > 0).float())
    slope = torch.autograd.grad(gate.sum(), score)[0]
    s = torch.sigmoid(score.detach())
    assert torch.allclose(slope, s * (1 - s), rtol=SAME_SLOPE)


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (FORMS["soft"], "0 or 1"),
        (lambda score: (score > 0).float() + score - score.detach(), "the one of the sigmoid"),
        (FORMS["round"], "exactly zero"),
        (FORMS["compare"], "cuts the graph"),
    ],
)
def test_a_gate_that_is_not_yet_right_is_refused(bench, mine, words):
    result = check(bench, mine)
    assert not result
    assert words in result.hint


def test_some_gates_have_nothing_to_hear():
    assert int(cells().counts.any(0).sum()) == 744
    assert GENES == 765
