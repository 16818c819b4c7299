"""Accumulation, GradScaler, several optimizers, compiled models."""

import warnings

import pytest
import torch
from torch import nn
from watch_training import batches, copy_of, made, same

from labkit import watch
from labkit.probes.verdict import Verdict
from labkit.watch import Blowup


def accumulate(watching, bad=None, parts=4):
    model, optimizer = made()
    watched = watch(model, optimizer, on_trigger="skip", every=6, folder=None)
    source = enumerate(batches(16, bad))
    for number, batch in watched.over(source) if watching else source:
        (model(batch).square().mean() / parts).backward()
        if number % parts == parts - 1:
            optimizer.step()
            optimizer.zero_grad()
    watched.close()
    return watched, copy_of(model, optimizer)


def test_accumulation_names_the_micro_batch():
    watched, _ = accumulate(True, bad=9)
    (trigger,) = watched.triggers
    assert (trigger.step, trigger.seen) == (9, 11)
    assert trigger.reproduced
    assert trigger.report.culprit.name == "batch"


def test_a_skip_drops_the_whole_accumulated_step():
    _, state = accumulate(True, bad=9)
    assert all(t.isfinite().all() for t in state)
    _, healthy = accumulate(True)
    _, plain = accumulate(False)
    assert same(healthy, plain)


def amp(faults, fused=False, given=True, count=14, scale=2.0**16):
    """Scaled training; `faults` maps a batch to what its loss is multiplied by."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    known = {"scaler": scaler} if given else {}
    watched = watch(model, optimizer, on_trigger="skip", folder=None, **known)
    for number, x in watched.over([(i, torch.ones(2, 3)) for i in range(count)]):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(x).square().mean().float()
        loss = loss * faults.get(number, 1.0)  # too large
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    watched.close()
    return watched, model, scaler


@pytest.mark.parametrize("fused", [False, True])
def test_a_refusal_of_the_scaler_is_its_own_business(fused):
    watched, _, scaler = amp({5: 1e38}, fused)
    assert watched.triggers == []
    assert scaler.get_scale() == 2.0**15


@pytest.mark.parametrize("fused", [False, True])
def test_ten_refusals_in_a_row_are_not(fused):
    watched, model, _ = amp(dict.fromkeys(range(2, 14), torch.inf), fused)
    trigger = watched.triggers[0]
    assert trigger.step == 11
    assert trigger.reason == "the GradScaler refused 10 steps in a row; its scale is 64"
    if not fused:  # the tracer forgives a fused step for ever: it runs, whatever the scaler says
        assert trigger.report.verdict in (Verdict.INF, Verdict.NAN)
        assert trigger.report.culprit.source.endswith("# too large")
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_scale_below_one_is_reported_before_it_becomes_zero():
    words = r"(?s)^skip did not help 5 times in a row: step 9: .*its scale is 0.5.*inf: mul, "
    with pytest.raises(Blowup, match=words):
        amp(dict.fromkeys(range(2, 14), torch.inf), scale=4.0)


def test_a_scaler_that_was_not_given_is_asked_for():
    with pytest.raises(ValueError, match=r"a GradScaler steps this optimizer.*scaler="):
        amp({}, given=False)


class Quiet(torch.optim.SGD):
    """Writes in a way that leaves no mark on the parameter's version."""

    @torch.no_grad()
    def step(self):
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None:
                parameter.data.sub_(parameter.grad * 0.1)


@pytest.mark.parametrize("kind", [torch.optim.Adam, Quiet])
def test_several_optimizers_in_one_step(kind):
    torch.manual_seed(0)
    one, two = nn.Linear(3, 3), nn.Linear(3, 1)
    first, second = kind(one.parameters()), torch.optim.SGD(two.parameters(), 0.1)
    starts = []

    def step(x):
        for part, optimizer in ((one, first), (two, second)):
            first.zero_grad()
            second.zero_grad()
            out = part(x)
            loss = (torch.sqrt(out - out) if part is two and x.sum() > 9 else out).sum()
            loss.backward()
            optimizer.step()

    with watch([one, two], [first, second], step, on_trigger="skip", folder=None) as watched:
        for value in (1.0, 2.0, 9.0, 1.0):
            starts.append(copy_of(one, first) + copy_of(two, second))
            watched(torch.full((1, 3), value))
    (trigger,) = watched.triggers
    assert (trigger.step, trigger.reproduced) == (2, True)
    assert trigger.report.culprit.op == "SqrtBackward0"
    assert "1.weight" in trigger.reason
    assert same(starts[2], starts[3])  # the first optimizer's step is taken back too


@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
def test_a_compiled_model_is_replayed_eagerly_and_that_is_said():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 3), nn.Sigmoid(), nn.Linear(3, 1))
    model = torch.compile(plain, backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        watched = watch(model, optimizer, on_trigger="skip", folder=None)
        for x in watched.over([torch.ones(1, 3), torch.ones(1, 3), torch.full((1, 3), torch.inf)]):
            optimizer.zero_grad()
            model(x).sum().backward()
            optimizer.step()
        watched.close()
    (trigger,) = watched.triggers
    assert "compiled parts ran eagerly" in trigger.remarks[0]
    assert trigger.report.culprit.name == "x"
    assert trigger.report.culprit.module == "0"
