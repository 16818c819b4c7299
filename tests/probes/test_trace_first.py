"""The tracer's contract with the benches: what one forward and backward must tell."""

import torch

from labkit import trace
from labkit.probes.verdict import Verdict


def test_healthy_leaves_nothing_behind():
    layer = torch.nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    report = trace(lambda: layer(torch.ones(4, 3)).square().mean(), model=layer)
    assert report.verdict is Verdict.HEALTHY
    assert [fate.word for fate in report.parameters] == ["ok", "ok"]
    assert layer.weight.grad is None
    assert torch.equal(layer.weight, before)
    assert not torch._C._len_torch_dispatch_stack()


def test_overflow_in_forward_is_named():
    bias = torch.full((3,), 89.5, requires_grad=True)
    report = trace(lambda: torch.exp(bias).sum())
    assert str(report).startswith("inf: exp, test_trace_first.py:")
    assert report.culprit.remark == "input up to 89.5"
    assert report.culprit.source == "report = trace(lambda: torch.exp(bias).sum())"


def test_birth_in_backward_is_named():
    x = torch.zeros(3, requires_grad=True)
    report = trace(lambda: x.square().sum().sqrt())
    assert (report.verdict, report.culprit.op) == (Verdict.NAN, "SqrtBackward0")


def test_dead_clamp_and_detach_are_named():
    layer = torch.nn.Linear(3, 2)
    dead = trace(lambda: (layer(torch.ones(4, 3)) + 50).clamp(-10, 10).sum(), model=layer)
    assert (dead.verdict, dead.culprit.op) == (Verdict.DEAD, "ClampBackward1")
    head = torch.nn.Linear(2, 1)
    cut = trace(lambda: head(layer(torch.ones(4, 3)).detach()).sum(), model=[layer, head])
    assert (cut.verdict, cut.culprit.op) == (Verdict.SEVERED, "detach")
    assert [fate.word for fate in cut.harmed] == ["none", "none"]
