"""A function that is right where the model happens to be is asked elsewhere, by hand."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from toy import failure, shifted

from labkit import check
from labkit.failures import _by_hand as by_hand
from labkit.models.spectral import NormBound


def never(mine):
    return "" if mine(torch.ones(4)).min() < 0 else "it is never below 0"


def stops(mine):
    raise RuntimeError("no such number")


def test_a_failure_may_ask_the_function_alone():
    result = check(failure(BY_HAND=((never, "go below"),)), shifted)
    assert not result
    assert result.hint == "go below"
    assert result.lines[-1] == "✗ by hand: it is never below 0"
    fine = check(failure(BY_HAND=((lambda mine: "", "go below"),)), shifted)
    assert fine
    assert fine.lines[-1] == "✓ by hand: right where the model does not come"


def test_a_question_at_which_the_function_stops_is_no_crash():
    result = check(failure(BY_HAND=((stops, "go on"),)), shifted)
    assert result.lines[-1] == "✗ by hand: it stopped with RuntimeError: no such number"
    assert result.hint == "go on"


def test_a_hint_may_look_at_the_reading():
    hints = {"nan": lambda reading: f"look at {reading.culprit.op}"}
    result = check(failure(HINTS=hints), lambda square: square.sqrt())
    assert result.hint == "look at SqrtBackward0"


def capped(low, high, leak=1.0):
    return lambda logvar: logvar.clamp(low, high).detach() + leak * (logvar - logvar.detach())


def inward(low, high):
    """Stops what leads out above `high` and below `low`."""

    def guard(logvar):
        out = capped(-10, 10)(logvar)
        if out.requires_grad:
            out.register_hook(lambda g: g * ~((logvar > high) & (g < 0) | (logvar < low) & (g > 0)))
        return out

    return guard


def bound(most, over_all=False):
    def mine(alpha, basis):
        A = torch.tensordot(alpha, basis, 1)
        norm = torch.linalg.matrix_norm(A.float(), 2).to(A.dtype)
        norm = norm.max().expand(len(A)) if over_all else norm
        return A / (norm / most).clamp(min=1)[:, None, None]

    return mine


def finite(*found):
    return all(bool(t.isfinite().all()) for t in found)


def not_nan(*found):
    return not any(bool(t.isnan().any()) for t in found)


def alive(gradients):
    return all(bool(g[0].any()) for g in gradients.values())


def naive_softmax(scores, mask):
    kept = scores.exp() * (mask != 0)
    return kept / (kept.sum(1, keepdim=True) + 1e-8)


def masked_low(scores, mask):
    low = scores.masked_fill(mask == 0, torch.finfo(scores.dtype).min)
    return torch.softmax(low, 1) * (mask != 0)


def shifted_softmax(scores, mask):
    kept = (scores - scores.amax(1, keepdim=True)).exp() * (mask != 0)
    return kept / kept.sum(1, keepdim=True).clamp(min=1e-30)


def orthogonal(noise, gain):
    return torch.linalg.qr(noise.T)[0].T * 2**0.5


def standardised(noise, gain):
    return (noise - noise.mean()) / noise.std() * (2 / noise.shape[1]) ** 0.5


def safe_root(x, y):
    squares = (x[:, None] - y).square().sum(-1)
    return torch.where(squares > 0, torch.where(squares > 0, squares, 1.0).sqrt(), 0.0)


RIGHT = {
    "stable_transforms": [
        lambda a, b: -a.exp() * torch.expm1(b - a),
        lambda a, b: 2 * ((a + b) / 2).exp() * ((a - b) / 2).sinh(),
    ],
    "exploding_logvar": [capped(-10, 10), inward(-10, 10)],
    "dead_clamp": [inward(-10, 10)],
    "runaway_operator": [bound(1.0)],
    "distances_that_cancel": [safe_root, lambda x, y: (x[:, None] - y).norm(dim=-1)],
    "your_own_model": [masked_low, shifted_softmax],
    "tests_that_catch": [lambda g, losses: alive(g) and finite(losses, *g.values())],
    "bad_initialisation": [orthogonal, standardised],
}
WRONG = {
    "stable_transforms": [
        (lambda a, b: torch.expm1(a - b), "must be put back"),
        (lambda a, b: torch.expm1(a) - torch.expm1(b), "Subtract first"),
    ],
    "exploding_logvar": [
        (capped(None, 10), "[-10, 10]"),
        (capped(-10, 20), "[-10, 10]"),
        (lambda v: v.clamp(-10, 10) + 1e-4 * (v - v.detach()), "comes through whole"),
    ],
    "dead_clamp": [
        (inward(-torch.inf, 10), "above the range and below it"),
        (inward(-10, torch.inf), "above the range and below it"),
    ],
    "runaway_operator": [
        (bound(1.05), "a norm of its own"),
        (bound(1.2), "a norm of its own"),
        (bound(1.0, over_all=True), "a norm of its own"),
    ],
    "distances_that_cancel": [
        (lambda x, y: (x[:, None] - y).square().sum(-1).sqrt(), "in the same place"),
        (lambda x, y: ((x[:, None] - y).square().sum(-1) + 1e-6).sqrt(), "in the same place"),
        (lambda x, y: (x[:, None] - y).abs().sum(-1), "Meant is the Euclidean one"),
    ],
    "your_own_model": [(naive_softmax, "torch.softmax")],
    "tests_that_catch": [
        (lambda g, losses: alive(g) and not_nan(losses, *g.values()), "Inf is not NaN"),
        (lambda g, losses: alive(g) and finite(losses) and not_nan(*g.values()), "Inf is not NaN"),
        (lambda g, losses: alive(g) and finite(*g.values()), "Ask of the losses"),
    ],
    "bad_initialisation": [
        (lambda noise, gain: noise * 1.1 * (2 / noise.shape[1]) ** 0.5, "fan_in"),
        (lambda noise, gain: noise / noise.norm(), "inputs a unit adds up"),
    ],
}


def pairs(table):
    return [(name, row) for name, rows in table.items() for row in rows]


@pytest.mark.parametrize(("name", "mine"), pairs(RIGHT))
def test_another_right_answer_is_taken(name, mine):
    result = check(name, mine)
    assert result, result


@pytest.mark.parametrize(("name", "case"), pairs(WRONG))
def test_what_the_model_cannot_tell_is_refused_and_told_why(name, case):
    mine, words = case
    result = check(name, mine)
    assert not result
    assert words in result.hint, result


@pytest.mark.parametrize("most", [0.97, 1.05])
def test_a_bound_is_asked_to_three_digits(most):
    assert by_hand.scaled_down(
        lambda alpha, basis: NormBound(most)(torch.tensordot(alpha, basis, 1))
    )


def test_a_function_without_a_gradient_is_told_so_and_does_not_stop():
    wrong = by_hand.difference_of_exponentials(lambda a, b: (a.exp() - b.exp()).detach())
    assert wrong == "at (3, 1) the slope in a is 0, and in truth 20.09"


def one_chunk(x, y):
    return torch.linalg.vector_norm(x[:, None] - y, dim=-1).sum()


def wide_chunks(x, y, rows):
    sums = [checkpoint(one_chunk, part, y, use_reentrant=False) for part in x.split(rows)]
    return torch.stack(sums).sum() / len(x) / len(y)


def test_chunks_that_are_too_wide_are_not_told_that_they_wait():
    result = check("chunks_that_save_nothing", wide_chunks)
    assert not result
    assert "too much is alive at once" in result.hint
    assert any("2 GB at once, 1 planned" in line for line in result.lines), result
    assert not any("wait for backward" in line for line in result.lines), result


def refuses_loudly(state, path):
    if not all(bool(p.isfinite().all()) for p in state["model"].values()):
        raise ValueError("not finite")
    aside = path.with_suffix(".new")
    torch.save(state, aside)
    aside.replace(path)


def test_a_save_that_raises_is_told_that_it_ended_the_training():
    result = check("crash_and_recovery", refuses_loudly)
    assert not result
    assert "raised an error in the middle of the training" in result.hint
    assert any("it stopped with ValueError: not finite" in line for line in result.lines)


def all_frozen(x, half, learns):
    return half.requires_grad_(False).eval()(x)


def test_a_half_that_never_learns_is_severed_and_nothing_stops():
    result = check("no_grad", all_frozen)
    assert not result
    assert "nothing learns any more" in result.hint
    assert not any("stopped" in line for line in result.lines), result
