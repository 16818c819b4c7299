"""A watch that an error or an interrupt left open, and an optimizer of another model."""

import copy

import pytest
import torch
from watch_training import batches, made

from labkit import watch
from labkit.watch import Blowup


def cell(model, optimizer, folder, bad=None, stop=None):
    """A cell of a notebook that watches a loop and is never closed."""
    watched = watch(model, optimizer, folder=folder)
    for number, batch in enumerate(watched.over(batches(6, bad))):
        if number == stop:
            raise KeyboardInterrupt
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("first", ["interrupted", "blown up"])
@pytest.mark.parametrize("anew", ["nothing", "the optimizer", "the model too"])
def test_the_same_cell_run_again_has_its_replay_and_its_capsule(first, anew, tmp_path):
    model, optimizer = made()
    with pytest.raises((KeyboardInterrupt, Blowup)):
        cell(model, optimizer, None, *((None, 2) if first == "interrupted" else (4, None)))
    if anew != "nothing":
        model = made()[0] if anew == "the model too" else model
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with pytest.raises(Blowup) as caught:
        cell(model, optimizer, tmp_path, bad=3)
    trigger = caught.value.trigger
    assert (trigger.step, trigger.report.culprit.name, trigger.reproduced) == (3, "batch", True)
    assert trigger.capsule.exists()
    assert len(optimizer._optimizer_step_pre_hooks) == 1


def test_the_older_watch_says_that_it_was_closed():
    model, optimizer = made()
    older = watch(model, optimizer, folder=None)
    with watch(model, optimizer, folder=None), pytest.raises(RuntimeError, match="A newer watch"):
        list(older.over(batches(1)))


def test_watches_on_two_trainings_leave_each_other_alone():
    one, other = (watch(*made(seed), folder=None) for seed in (0, 1))
    assert [list(w.over(range(2))) for w in (one, other)] == [[0, 1], [0, 1]]
    one.close()
    other.close()


@pytest.mark.parametrize(
    "form",
    [
        lambda out, loss: (out, loss),
        lambda out, loss: {"out": out, "train_loss": loss},
        lambda out, loss: [out, loss.item()],
    ],
    ids=["tuple", "dict", "number"],
)
def test_a_bad_loss_is_seen_beside_what_else_a_step_returns(form):
    model, optimizer = made()

    def step(batch):
        optimizer.zero_grad()
        out = model(batch).square()
        out.mean().backward()
        optimizer.step()
        return form(out, out.mean() * torch.nan)  # reported, and no backward ran from it

    with watch(model, optimizer, step=step, folder=None) as watched, pytest.raises(Blowup):
        watched(batches(1)[0])
    assert watched.triggers[0].reason == "not finite: loss (nan)"


def test_an_optimizer_of_another_model_is_refused():
    model, optimizer = made()
    with pytest.raises(ValueError, match=r"Adam holds none of them.*model.parameters\(\)"):
        watch(copy.deepcopy(model), optimizer)
    watch([copy.deepcopy(model), model], optimizer, folder=None).close()
    alone = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    watch(model, [optimizer, alone], folder=None).close()
