"""Nothing stays behind, and bad input is told what was expected."""

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from watch_training import batches, made

import labkit
from labkit import watch
from labkit.probes.session import _ACTIVE
from labkit.watch import Blowup


def hooks(optimizer):
    return len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)


def clean(optimizer):
    stack = torch._C._len_torch_dispatch_stack()
    return hooks(optimizer) == 0 and stack == 0 and getattr(_ACTIVE, "session", None) is None


def body(model, optimizer, batch):
    optimizer.zero_grad()
    model(batch).square().mean().backward()
    optimizer.step()


def test_closing_takes_every_hook_away():
    model, optimizer = made()
    watched = watch(model, optimizer, folder=None)
    assert hooks(optimizer) == 2
    for batch in watched.over(batches(3)):
        body(model, optimizer, batch)
    watched.close()
    watched.close()
    assert clean(optimizer)
    assert "step" not in vars(optimizer)
    with pytest.raises(RuntimeError, match="closed; make a new one"):
        list(watched.over(batches(1)))


@pytest.mark.parametrize("form", ["loop", "call"])
@pytest.mark.parametrize("when", ["first run", "replay"])
def test_an_error_of_the_step_passes_and_leaves_nothing(form, when):
    model, optimizer = made()

    def step(batch):
        body(model, optimizer, batch)
        if watched.replaying == (when == "replay"):
            raise KeyError("mine")

    watched = watch(model, optimizer, step=step if form == "call" else None, folder=None)

    def train():
        for batch in watched.over(batches(2, bad=0)) if form == "loop" else batches(2, bad=0):
            step(batch) if form == "loop" else watched(batch)

    with pytest.raises(KeyError, match="mine") as caught, watched:
        train()
    assert caught.tb is not None  # which holds every frame, and so keeps what is open alive
    assert all(p.isfinite().all() for p in model.parameters())
    assert clean(optimizer)


def test_an_error_inside_a_watch_that_goes_on():
    model, optimizer = made()
    watched = watch(model, optimizer, on_trigger="skip", folder=None)

    def train(bad):
        for number, batch in watched.over(enumerate(batches(4, bad=bad))):
            body(model, optimizer, batch)
            if number == 3:
                raise KeyError("mine")

    for bad in (None, 2):
        with pytest.raises(KeyError, match="mine"):
            train(bad)
        assert torch._C._len_torch_dispatch_stack() == 0
    for batch in watched.over(batches(4, bad=1)):
        body(model, optimizer, batch)
    watched.close()
    assert [t.step for t in watched.triggers] == [6, 9]
    assert all(t.reproduced for t in watched.triggers)


def test_a_batch_that_ended_in_an_error_is_not_run_again():
    model, optimizer = made()
    watched, ran = watch(model, optimizer, on_trigger="skip", folder=None), []

    def train(fails, bad):
        for number, batch in watched.over(enumerate(batches(3, bad))):
            ran.append((fails, number))
            if fails and number == 2:
                raise KeyError("mine")
            body(model, optimizer, batch)

    with pytest.raises(KeyError):
        train(True, None)
    train(False, 0)
    watched.close()
    assert ran == [*((True, n) for n in range(3)), *((False, n) for n in (0, 0, 1, 2))]


def test_a_break_in_a_replay_leaves_nothing():
    model, optimizer = made()
    watched = watch(model, optimizer, folder=None)
    for batch in watched.over(batches(2, bad=0)):
        body(model, optimizer, batch)
        if watched.replaying:
            break
    assert torch._C._len_torch_dispatch_stack() == 0
    assert all(p.isfinite().all() for p in model.parameters())
    with pytest.raises(Blowup, match="the loop was left in this very step"):
        watched.close()
    assert clean(optimizer)


def test_a_break_in_the_very_step_is_told_when_the_watch_closes():
    model, optimizer = made()
    before = [p.detach().clone() for p in model.parameters()]
    watched = watch(model, optimizer, folder=None)
    for batch in watched.over(batches(2, bad=0)):
        body(model, optimizer, batch)
        break
    with pytest.raises(Blowup, match="the loop was left"):
        watched.close()
    assert clean(optimizer)
    assert all(p.equal(b) for p, b in zip(model.parameters(), before, strict=True))


def test_a_bad_step_outside_of_every_watched_batch():
    model, optimizer = made()
    with watch(model, optimizer, on_trigger="skip", folder=None) as watched:
        with pytest.raises(Blowup, match=r"not replayed: the step ran outside of watched.over"):
            body(model, optimizer, batches(1, bad=0)[0])
        body(model, optimizer, batches(1)[0])
    assert all(p.isfinite().all() for p in model.parameters())
    assert len(watched.triggers) == 1


def test_the_function_is_what_labkit_exports():
    assert labkit.watch is watch
    assert callable(labkit.watch)


MODEL = nn.Linear(2, 1)
SGD = torch.optim.SGD(MODEL.parameters(), 0.1)


@pytest.mark.parametrize(
    ("error", "words", "arguments", "options"),
    [
        (TypeError, "model: expected a torch.nn.Module.*got str", ("net", SGD), {}),
        (TypeError, "optimizers: expected torch.optim.*got Linear", (MODEL, MODEL), {}),
        (ValueError, "optimizers: expected at least one", (MODEL, []), {}),
        (TypeError, "step: expected a function.*got Linear", (MODEL, SGD, MODEL), {}),
        (TypeError, "step: .*got list.*use watched.over", (MODEL, SGD, [1]), {}),
        (TypeError, "scaler: expected a torch.amp.GradScaler", (MODEL, SGD), {"scaler": 3}),
        (TypeError, "keep: .*state_dict.*got int", (MODEL, SGD), {"keep": [3]}),
        (
            ValueError,
            "on_trigger: .*raise, skip, rollback; got 'stop'",
            (MODEL, SGD),
            {"on_trigger": "stop"},
        ),
        (ValueError, "limit: expected a whole number.*got 0", (MODEL, SGD), {"limit": 0}),
        (ValueError, "every: .*got 2.5", (MODEL, SGD), {"every": 2.5}),
        (ValueError, "ring: .*got True", (MODEL, SGD), {"ring": True}),
        (ValueError, "model: .*lazy. Run one batch", (nn.LazyLinear(2), SGD), {}),
    ],
)
def test_bad_arguments(error, words, arguments, options):
    with pytest.raises(error, match=words):
        watch(*arguments, **options)
    assert hooks(SGD) == 0


def test_a_call_without_a_step():
    with (
        pytest.raises(TypeError, match=r"none was given.*watched.over"),
        watch(MODEL, SGD, folder=None) as watched,
    ):
        watched(1)


def test_a_closure_is_refused():
    watched = watch(MODEL, SGD, step=lambda x: SGD.step(lambda: MODEL(x).sum()), folder=None)
    with pytest.raises(TypeError, match="LBFGS cannot be watched"), watched:
        watched(torch.ones(1, 2))


def test_an_optimizer_that_never_steps():
    watched = watch(MODEL, SGD, folder=None)
    with pytest.raises(RuntimeError, match="no optimizer step in 1000 batches"), watched:
        list(watched.over(range(2000)))


def test_distributed_training_is_refused():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match="would wait for the others forever"):
            watch(MODEL, SGD)
    finally:
        torch.distributed.destroy_process_group()


def test_memory_of_the_last_gradients_is_free_during_a_step():
    # Held gradients would keep backward from using their memory again: slower by page faults.
    model, optimizer = made()
    watched, expired = watch(model, optimizer, folder=None), []
    for batch in watched.over(batches(3)):
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        old = [StorageWeakRef(grad.untyped_storage()) for grad in grads]
        del grads
        optimizer.zero_grad()
        expired += [storage.expired() for storage in old]
        body(model, optimizer, batch)
    watched.close()
    assert len(expired) == 12
    assert all(expired)
