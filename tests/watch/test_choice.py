"""Raise, skip, roll back: what the user chose, with a limit, and a state that is finite."""

import pytest
import torch
from torch import nn
from watch_training import batches, copy_of, made, same

from labkit import watch
from labkit.watch import Blowup


def train(given, **options):
    model, optimizer = made()
    watched = watch(model, optimizer, folder=None, **options)
    states = []
    with watched:
        for batch in watched.over(given):
            if not watched.replaying:
                states.append(copy_of(model, optimizer))
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()
    return watched, states, copy_of(model, optimizer)


def test_a_raise_leaves_the_state_before_the_step_and_its_gradients():
    model, optimizer = made()
    watched, states = watch(model, optimizer, folder=None), []

    def train():
        for batch in watched.over(batches(8, bad=5)):
            states.append(copy_of(model, optimizer))
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()

    with pytest.raises(Blowup) as caught, watched:
        train()
    state = states[5]
    assert caught.value.trigger is watched.triggers[0]
    assert caught.value.trigger.report.culprit.name == "batch"
    assert same(state, copy_of(model, optimizer))
    assert all(p.grad.isnan().any() for p in model.parameters())


def test_a_skipped_batch_leaves_no_trace():
    clean = batches(9)
    bad = [*clean[:5], torch.full((16, 4), torch.inf), *clean[5:]]
    watched, states, _ = train(bad, on_trigger="skip")
    assert [trigger.step for trigger in watched.triggers] == [5]
    assert same(states[5], states[6])  # running means too (D10)


def test_a_roll_back_returns_to_the_verified_state():
    watched, states, _ = train(batches(12, bad=9), on_trigger="rollback", every=4)
    assert [trigger.step for trigger in watched.triggers] == [9]
    assert same(states[8], states[10])


def test_a_second_roll_back_goes_further_back():
    given = batches(14, bad=9)
    given[10] = given[9]
    _, states, _ = train(given, on_trigger="rollback", every=4)
    assert same(states[8], states[10])
    assert same(states[4], states[11])


@pytest.mark.parametrize("word", ["skip", "rollback"])
def test_the_limit(word):
    given = batches(20)
    for number in range(6, 20):
        given[number] = given[number] * torch.nan
    with pytest.raises(Blowup, match=rf"^{word} did not help 3 times in a row: step 9: "):
        train(given, on_trigger=word, limit=3, every=4)


def test_single_skips_are_no_row():
    given = batches(20)
    for number in range(1, 20, 2):
        given[number] = given[number] * torch.nan
    watched, _, state = train(given, on_trigger="skip", limit=1)
    assert len(watched.triggers) == 10
    assert all(t.isfinite().all() for t in state)


def test_a_poisoned_start_is_said_at_once():
    model = nn.Linear(2, 1)
    nn.init.constant_(model.weight, torch.nan)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for word in ("raise", "skip", "rollback"):
        watched = watch(model, optimizer, on_trigger=word, folder=None)
        with pytest.raises(Blowup, match=r"not finite: weight \(nan\)"), watched:
            list(watched.over([torch.ones(1, 2)]))


def test_one_bad_gradient_of_two_hundred_steps_costs_one_step():
    # The skip loop of ledger D18: where only the loss is checked, 189 of 200 steps are lost.
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer, updates, losses = torch.optim.Adam(model.parameters()), 0, []
    watched = watch(model, optimizer, on_trigger="rollback", folder=None)
    for number, x in watched.over(enumerate([torch.ones(2, 3)] * 200)):
        before = model.weight.detach().clone()
        optimizer.zero_grad()
        loss = model(x).square().mean()
        if number == 10:
            model.weight.register_hook(lambda grad: grad * torch.nan)
        loss.backward()
        model.weight._backward_hooks = None
        optimizer.step()
        losses.append(loss.item())
        updates += not watched.replaying and not before.equal(model.weight)
    watched.close()
    assert (updates, len(watched.triggers)) == (199, 1)
    assert all(p.isfinite().all() for p in model.parameters())
