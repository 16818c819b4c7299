"""The replay is the same step, to the bit, and names the line."""

import math
import random
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from watch_training import batches, copy_of, generators, made, same

from labkit import watch
from labkit.probes.verdict import Verdict


def line_of(mark: str) -> int:
    with open(__file__, encoding="utf-8") as file:
        return next(i for i, line in enumerate(file, 1) if line.rstrip().endswith(f"# {mark}"))


def gradients(model):
    return [p.grad.detach().clone() for p in model.parameters()]


def loop(watched, model, optimizer, given, seen):
    for batch in watched.over(given):
        optimizer.zero_grad()
        loss = torch.log(model(batch).square().sum())
        loss.backward()
        seen.append((loss.detach().clone(), *gradients(model)))
        optimizer.step()


def called(watched, given):
    for batch in given:
        watched(batch)


@pytest.mark.parametrize("form", ["loop", "call"])
def test_the_replay_has_the_same_bits(form):
    model, optimizer = made()
    given, seen = batches(12, bad=9), []

    def step(batch):
        optimizer.zero_grad()
        loss = torch.log(model(batch).square().sum())
        loss.backward()
        seen.append((loss.detach().clone(), *gradients(model)))
        optimizer.step()
        return loss

    step_or_none = step if form == "call" else None
    with watch(model, optimizer, step=step_or_none, on_trigger="skip", folder=None) as watched:
        if form == "loop":
            loop(watched, model, optimizer, given, seen)
        else:
            called(watched, given)
    assert len(seen) == 13
    assert same(seen[9], seen[10])
    assert not same(seen[8], seen[10])
    (trigger,) = watched.triggers
    assert (trigger.step, trigger.seen, trigger.reproduced) == (9, 9, True)
    assert trigger.report.verdict is Verdict.NAN
    assert trigger.report.culprit.name == "batch"
    assert all(p.isfinite().all() for p in (*model.parameters(), *model.buffers()))


def run(length, watching, bad=None):
    model, optimizer = made()
    watched = watch(model, optimizer, on_trigger="skip", every=4, folder=None) if watching else None
    for batch in watched.over(batches(length, bad)) if watching else batches(length, bad):
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
    if watched:
        watched.close()
    return copy_of(model, optimizer), generators()


def test_watching_changes_no_bit_of_a_healthy_training():
    plain, drawn = run(11, watching=False)
    watched, drawn_too = run(11, watching=True)
    assert same(plain, watched)
    assert drawn == drawn_too


def test_random_numbers_go_on_behind_a_replay_as_without_it():
    _, drawn = run(11, watching=False, bad=6)
    _, drawn_too = run(11, watching=True, bad=6)
    assert drawn == drawn_too


def test_a_random_fault_is_met_again():
    torch.manual_seed(3)
    model = nn.Linear(3, 1)
    optimizer, own = torch.optim.SGD(model.parameters(), 0.1), torch.Generator().manual_seed(1)
    numbers = np.random.default_rng(5)
    watched = watch(model, optimizer, keep=[own, numbers], on_trigger="skip", folder=None)
    for batch in watched.over([torch.ones(2, 3)] * 30):
        optimizer.zero_grad()
        chance = torch.rand(1, generator=own) + numbers.random()
        # -log of a number that is now and then 0
        loss = -torch.log(model(batch).square().mean() * (chance > 0.4)).sum()  # born by chance
        loss.backward()
        optimizer.step()
    watched.close()
    assert watched.triggers
    for trigger in watched.triggers:
        assert trigger.reproduced
        assert trigger.report.culprit.line == line_of("born by chance")


def test_a_fault_of_backward_names_its_line():
    model = nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    points = [torch.rand(2, 3) + 1, torch.zeros(2, 3)]
    watched = watch(model, optimizer, on_trigger="skip", folder=None)
    for x in watched.over(points):
        optimizer.zero_grad()
        loss = model(x).square().sum().sqrt()  # born in backward
        watched.see(loss)
        loss.backward()
        optimizer.step()
    watched.close()
    (trigger,) = watched.triggers
    assert trigger.report.culprit.op == "SqrtBackward0"
    assert trigger.report.culprit.line == line_of("born in backward")
    assert trigger.reason == "not finite: gradient of weight (nan)"


def test_a_bad_loss_with_finite_gradients_is_seen_too():
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    offsets = [0.0, 0.0, math.inf, 0.0]

    def step(offset):
        optimizer.zero_grad()
        loss = model(torch.ones(2, 3)).mean() + offset  # an infinite constant
        loss.backward()
        optimizer.step()
        return {"loss": loss}

    before = []
    with watch(model, optimizer, step=step, on_trigger="skip", folder=None) as watched:
        for offset in offsets:
            before.append(copy_of(model, optimizer))
            watched(offset)
    (trigger,) = watched.triggers
    assert (trigger.step, trigger.reason) == (2, "not finite: loss (inf)")
    assert trigger.report.verdict is Verdict.INF
    assert trigger.report.culprit.line == line_of("an infinite constant")
    assert trigger.reproduced
    assert same(before[2], before[3])  # the optimizer had stepped, and that was undone


def test_forgotten_gradients_are_put_back_too():
    leaf, seen = nn.Parameter(torch.ones(3)), []
    optimizer = torch.optim.SGD([leaf], 0.1)
    given = [torch.rand(3) for _ in range(8)]
    given[6][1] = math.nan  # spoils one entry; the others tell whether the replay is the same
    watched = watch(None, optimizer, on_trigger="skip", folder=None)
    for x in watched.over(given):  # never zero_grad: every step adds
        (leaf * x).sum().backward()
        seen.append([leaf.grad.detach().clone()])
        optimizer.step()
    watched.close()
    assert watched.triggers[0].step == 6
    assert watched.triggers[0].reproduced
    again = [number for number, grad in enumerate(seen) if number > 6 and same(grad, seen[6])]
    assert len(again) == 2  # the redo of the steps since the verified state, and the trace


def test_a_mask_of_infinities_is_no_fault():
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, every=1, folder=None) as watched:
        for x in watched.over([torch.ones(1, 2)] * 4):
            optimizer.zero_grad()
            torch.softmax(model(x) + model.mask, 1).sum().backward()
            optimizer.step()
    assert watched.triggers == []


Pair = namedtuple("Pair", "x y")


def test_a_batch_that_is_overwritten():
    told = {}
    for safe in (False, True):
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        given = [Pair(torch.full((2, 3), v), {"y": torch.zeros(1)}) for v in (1.0, 89.0)]
        watched = watch(model, optimizer, safe=safe, on_trigger="skip", folder=None)
        for pair in watched.over(given):
            optimizer.zero_grad()
            loss = (model(pair.x) - pair.y["y"]).mean() + pair.x.exp().mul(model.bias).sum()
            loss.backward()
            optimizer.step()
            pair.x.zero_()
        watched.close()
        (told[safe],) = watched.triggers
    assert told[True].reproduced
    assert told[True].remarks == ()
    assert not told[False].reproduced
    assert "modified in place; watch(safe=True)" in told[False].remarks[0]
    assert told[False].remarks[1] == "not reproduced: the step ran well when it was run again"


def test_a_copied_batch_is_still_the_culprit():
    model, optimizer = made()
    watched = watch(model, optimizer, safe=True, on_trigger="skip", folder=None)
    for batch in watched.over(batches(4, bad=2)):
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
    watched.close()
    culprit = watched.triggers[0].report.culprit
    assert (culprit.phase, culprit.name) == ("input", "batch")


def test_what_is_not_kept_is_said():
    model = nn.Linear(3, 1)
    optimizer, calls = torch.optim.SGD(model.parameters(), 0.1), []
    watched = watch(model, optimizer, on_trigger="skip", folder=None)
    for x in watched.over([torch.ones(2, 3)] * 3):
        calls.append(1)
        optimizer.zero_grad()
        (model(x).sum() * (math.nan if len(calls) == 2 else 1.0)).backward()
        optimizer.step()
    watched.close()
    (trigger,) = watched.triggers
    assert not trigger.reproduced
    assert "not reproduced" in str(trigger)
    assert len(calls) == 4


@pytest.mark.parametrize("draw", [np.random.randn, lambda: random.gauss(0, 1), random.random])
def test_a_normal_number_that_waits_in_its_generator_is_put_back(draw):
    def seed():
        np.random.seed(3)
        random.seed(3)

    leaf, seen = nn.Parameter(torch.ones(3)), []
    optimizer = torch.optim.SGD([leaf], 0.1)
    seed()
    watched = watch(None, optimizer, on_trigger="skip", folder=None)
    for number in watched.over(range(6)):  # normal numbers are made in pairs, the second is kept
        optimizer.zero_grad()
        seen.append(draw())
        (leaf * seen[-1] * (math.nan if number in (2, 3) else 1.0)).sum().backward()
        optimizer.step()
    watched.close()
    assert [seen[2], seen[4]] == [seen[3], seen[5]]
    seed()
    assert [*seen[:3], seen[4], *seen[6:]] == [draw() for _ in range(6)]


def test_other_bits_are_told():
    leaf, calls = nn.Parameter(torch.ones(2)), []
    optimizer = torch.optim.SGD([leaf], 0.1)
    watched = watch(None, optimizer, on_trigger="skip", folder=None)
    for x in watched.over([torch.ones(2), torch.tensor([1.0, math.nan])]):
        calls.append(1)
        optimizer.zero_grad()
        (leaf * x * len(calls)).sum().backward()
        optimizer.step()
    watched.close()
    (trigger,) = watched.triggers
    assert not trigger.reproduced
    told = "not reproduced to the bit: gradient of optimizers[0].parameter[0]"
    assert trigger.remarks == (told,)
