"""Faults that are born inside of an optimizer, or that hide in its state."""

import pytest
import torch
from torch import nn
from watch_training import copy_of, same

from labkit import watch
from labkit.watch import Blowup

EVERY = 5  # batches between two verified states


def line_of(mark: str) -> int:
    with open(__file__, encoding="utf-8") as file:
        return next(i for i, line in enumerate(file, 1) if line.rstrip().endswith(f"# {mark}"))


class Spoiled:
    """A training whose step 7 does harm in the way that is asked for."""

    def __init__(self, make, scale=1.0, rate=None, guilty=7):
        torch.manual_seed(0)
        self.model = nn.Linear(3, 2)
        self.optimizer = make(self.model.parameters())
        self.scale, self.rate, self.guilty = scale, rate, guilty
        self.before = []  # the state before each first run of a batch

    def run(self, **options):
        watched = watch(self.model, self.optimizer, every=EVERY, folder=None, **options)
        with watched:
            for number, x in watched.over([(i, torch.ones(2, 3) * (i + 1)) for i in range(23)]):
                if not watched.replaying:
                    self.before.append(copy_of(self.model, self.optimizer))
                self.step(number, x)
        return watched

    def step(self, number, x):
        self.optimizer.zero_grad()
        loss = self.model(x).square().mean() * (self.scale if number == self.guilty else 1.0)
        loss.backward()
        if self.rate:
            self.optimizer.param_groups[0]["lr"] = self.rate if number == self.guilty else 1e-3
        self.optimizer.step()  # the optimizer


def adam(parameters):
    return torch.optim.Adam(parameters, 1e-3)


def sgd(parameters):
    return torch.optim.SGD(parameters, 1e-3)


def no_room(parameters):
    return torch.optim.Adam(parameters, 1e-3, eps=0.0)


FAULTS = {  # what is spoiled, and the batch in which the check sees it
    "one finite gradient freezes Adam (D07)": (Spoiled(adam, scale=1e22), 9),
    "a rate that overflows": (Spoiled(sgd, rate=3e38), 8),
    "0/0 in Adam without eps": (Spoiled(no_room, scale=0.0, guilty=0), 1),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_guilty_step_is_found(name):
    training, seen = FAULTS[name]
    watched = training.run(on_trigger="skip")
    (trigger,) = watched.triggers
    assert (trigger.step, trigger.seen) == (training.guilty, seen)
    assert trigger.report.culprit.phase == "optimizer"
    assert trigger.report.culprit.line == line_of("the optimizer")
    assert trigger.reproduced, trigger.remarks


def test_a_skip_goes_on_from_the_state_before_the_guilty_step():
    training = Spoiled(adam, scale=1e22)
    training.run(on_trigger="skip")
    # Batch 7 is guilty and seen before batch 10, which then begins where batch 7 had begun.
    assert same(training.before[7], training.before[10])
    assert all(t.isfinite().all() for t in copy_of(training.model, training.optimizer))


def test_a_roll_back_goes_on_from_the_verified_state():
    training = Spoiled(adam, scale=1e22)
    training.run(on_trigger="rollback")
    assert same(training.before[5], training.before[10])


def test_the_last_steps_are_verified_when_the_watch_closes():
    training = Spoiled(adam, scale=1e22, guilty=21)
    watched = training.run(on_trigger="skip")
    assert [(t.step, t.seen) for t in watched.triggers] == [(21, 22)]


def test_random_numbers_go_on_behind_a_redo():
    def drawn(watching):
        torch.manual_seed(0)
        leaf = torch.nn.Parameter(torch.ones(3))
        optimizer, numbers = adam([leaf]), []
        watched = watch(None, optimizer, on_trigger="skip", every=EVERY, folder=None)
        for number in watched.over(range(13)) if watching else range(13):
            optimizer.zero_grad()
            (leaf * torch.rand(3)).sum().mul(1e22 if number == 7 else 1.0).backward()
            optimizer.step()
            numbers = numbers if watched.replaying else [*numbers, torch.get_rng_state().tolist()]
        watched.close()
        assert len(watched.triggers) == watching
        return numbers

    assert drawn(watching=True) == drawn(watching=False)


def test_a_loop_that_is_left_is_verified_too():
    training = Spoiled(adam, scale=1e22)
    watched = watch(training.model, training.optimizer, every=EVERY, folder=None)
    for number, x in watched.over([(i, torch.ones(2, 3)) for i in range(23)]):
        training.step(number, x)
        if number == 8:
            break
    with pytest.raises(Blowup, match=r"exp_avg_sq of .*\n  not replayed: the loop was left before"):
        watched.close()
    assert all(t.isfinite().all() for t in copy_of(training.model, training.optimizer))


def test_a_parameter_spoiled_by_hand_is_traced_to_its_line():
    torch.manual_seed(0)
    model = nn.Linear(3, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, on_trigger="skip", every=4, folder=None) as watched:
        for number, x in watched.over(enumerate([torch.ones(2, 3)] * 9)):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            with torch.no_grad():
                rows = model.weight.norm(dim=1, keepdim=True)
                model.weight.div_(rows * (number != 5))  # divided by zero
    (trigger,) = watched.triggers
    assert trigger.step == 5
    assert trigger.report.culprit.line == line_of("divided by zero")


def test_a_state_changed_between_batches_is_the_new_start():
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    other = {name: value * 2 for name, value in model.state_dict().items()}

    def step(x):
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()

    with watch(model, optimizer, step, on_trigger="rollback", folder=None) as watched:
        watched(torch.ones(1, 3))
        model.load_state_dict(other)
        watched(torch.full((1, 3), torch.nan))
    assert [t.step for t in watched.triggers] == [1]
    assert all(model.state_dict()[name].equal(value) for name, value in other.items())


NO_CLOSURE = [
    kind
    for kind in vars(torch.optim).values()
    if isinstance(kind, type)
    and issubclass(kind, torch.optim.Optimizer)
    and kind not in (torch.optim.Optimizer, torch.optim.LBFGS)
]


@pytest.mark.parametrize("kind", NO_CLOSURE, ids=lambda kind: kind.__name__)
def test_a_refused_step_does_nothing(kind):
    leaf = nn.Parameter(torch.rand(4, 3) + 1)
    options = {"lr": 0.1, **({"weight_decay": 0.1} if kind is not torch.optim.Rprop else {})}
    if kind is torch.optim.SparseAdam:
        options = {"lr": 0.1}
    optimizer = kind([leaf], **options)
    watched = watch(None, optimizer, on_trigger="skip", folder=None)
    states = []
    for x in watched.over([torch.ones(4, 3), torch.full((4, 3), torch.nan)]):
        optimizer.zero_grad()
        (leaf * x).sum().backward()
        if kind is torch.optim.SparseAdam:
            leaf.grad = leaf.grad.to_sparse()
        states.append([leaf.detach().clone(), *(s.clone() for s in slots(optimizer))])
        optimizer.step()
        if not watched.replaying:
            states.append([leaf.detach().clone(), *(s.clone() for s in slots(optimizer))])
            assert leaf.grad is not None
    watched.close()
    assert not same(states[0], states[1][: len(states[0])])
    assert same(states[1], states[2])
    assert same(states[2], states[3])  # the refused step itself
    assert same(states[3], [leaf.detach(), *slots(optimizer)])  # and what the watch left


def slots(optimizer):
    states = optimizer.state.values()
    return [s for state in states for s in state.values() if isinstance(s, torch.Tensor)]
