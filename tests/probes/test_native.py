"""Where a backward is C++ alone the recorder looks away; where Python may run in it, it looks."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from labkit import trace
from labkit.probes.record import Recorder
from labkit.probes.verdict import Verdict
from tests.probes.lines import line_of


def ruined(grad):
    return grad / torch.zeros_like(grad)


def on_a_tensor(x, w):
    h = x * w
    h.register_hook(ruined)
    return h.exp().sum()


def on_a_leaf(x, w):
    w.register_hook(ruined)
    return (x * w).exp().sum()


def on_a_node(x, w):
    h = (x * w).exp()
    h.grad_fn.register_prehook(lambda grads: tuple(map(ruined, grads)))
    return h.sum()


def after_accumulation(x, w):
    def spoil(leaf):
        leaf.grad = ruined(leaf.grad)

    w.register_post_accumulate_grad_hook(spoil)
    return (x * w).exp().sum()


class _Ruin(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return ruined(grad)


def in_a_function(x, w):
    return _Ruin.apply(x * w).sum()


def on_what_is_saved(x, w):
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, ruined):
        return (x * w).exp().sum()


def on_one_that_is_saved(x, w):
    h = (x * w).exp()
    h.grad_fn._raw_saved_result.register_hooks(lambda saved: saved, ruined)
    return h.sum()


WAYS = (
    *(on_a_tensor, on_a_leaf, on_a_node, after_accumulation),
    *(in_a_function, on_what_is_saved, on_one_that_is_saved),
)


@pytest.mark.parametrize("loss", WAYS)
def test_what_python_breaks_inside_a_backward_is_named(loss):
    x, w = torch.ones(3), torch.ones(3, requires_grad=True)
    report = trace(lambda: loss(x, w).backward())
    assert report.verdict in (Verdict.INF, Verdict.NAN)
    assert (report.culprit.op, report.culprit.line) == ("div", line_of(ruined, "return"))


@pytest.mark.parametrize("before", [on_a_leaf, after_accumulation])
def test_a_hook_that_was_there_before_the_trace(before):
    x, w = torch.ones(3), torch.ones(3, requires_grad=True)
    before(x, w)
    report = trace(lambda: (x * w).exp().sum().backward())
    assert (report.culprit.op, report.culprit.line) == ("div", line_of(ruined, "return"))


def test_a_hook_on_a_graph_that_was_there_before_the_trace():
    x, w = torch.ones(3), torch.ones(3, requires_grad=True)
    loss = on_a_tensor(x, w)
    report = trace(lambda: loss.backward())
    assert report.culprit.line == line_of(ruined, "return")


def test_a_graph_from_before_the_trace_is_followed_to_its_leaves():
    model = torch.nn.Linear(3, 1)
    loss = model(torch.ones(1, 3)).clamp(min=1e9).sum()
    report = trace(lambda: loss.backward(), model)
    assert (report.verdict, report.culprit.op) == (Verdict.DEAD, "ClampBackward1")
    assert {fate.name for fate in report.harmed} == {"weight", "bias"}
    assert "a graph from before the trace" in report.explain().cause


def test_a_loss_that_was_bad_before_the_trace_asks_for_the_forward_pass():
    model = torch.nn.Linear(3, 1)
    loss = model(torch.ones(1, 3)).sum() / 0.0
    report = trace(lambda: loss.backward(), model)
    assert report.verdict is Verdict.INF
    assert "from before the trace" in report.culprit.name
    assert "forward pass inside the traced step" in report.explain().repair


def test_a_grad_that_was_bad_before_this_backward_is_told_from_one_that_arrives():
    model = torch.nn.Linear(3, 1)
    model.weight.grad = torch.full((1, 3), torch.nan)
    report = trace(lambda: model(torch.ones(1, 3)).sum().backward(), model)
    assert report.culprit.op == "AccumulateGrad"
    assert report.culprit.remark == "3 NaN of 3 entries were in .grad before this backward"
    assert "empty the gradients" in report.explain().repair


def test_what_a_checkpoint_runs_again_is_seen():
    x, w = torch.ones(3), torch.ones(3, requires_grad=True)
    names = []

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    def step():
        checkpoint(lambda: (x * w).exp().sum(), use_reentrant=False).backward()

    report = trace(step)
    assert sum(op.name == "exp" for op in report.ops) == 2
    with Reads():
        trace(step)
    assert names.count("exp") == 2


def _seen_in_backward(monkeypatch, step) -> int:
    """How many operators reach the recorder from within the engine."""
    calls, real = [], Recorder.__torch_dispatch__

    def counted(self, func, types, args=(), kwargs=None):
        calls.append(torch._C._current_autograd_node() is not None)
        return real(self, func, types, args, kwargs)

    monkeypatch.setattr(Recorder, "__torch_dispatch__", counted)
    trace(step)
    return sum(calls)


def test_a_plain_backward_is_left_to_its_hooks(monkeypatch):
    x, w = torch.ones(3), torch.ones(3, requires_grad=True)
    assert _seen_in_backward(monkeypatch, lambda: (x * w).exp().sum().backward()) == 0


def test_torch_autograd_grad_is_left_to_its_hooks_too(monkeypatch):
    x, w = torch.ones(3), torch.ones(3, requires_grad=True)

    def step():
        torch.autograd.grad((x * w).exp().sum(), w)

    assert _seen_in_backward(monkeypatch, step) == 0


def test_a_backward_that_makes_a_graph_is_seen(monkeypatch):
    x, w = torch.ones(3), torch.ones(3, requires_grad=True)

    def by_name():
        torch.autograd.grad((x * w).exp().sum(), w, create_graph=True)

    def by_position():
        torch.autograd.grad((x * w).exp().sum(), (w,), None, True, True)

    assert _seen_in_backward(monkeypatch, by_name) > 0
    assert _seen_in_backward(monkeypatch, by_position) > 0


def test_another_mode_on_top_still_sees_the_backward():
    x, w, names = torch.ones(3), torch.ones(3, requires_grad=True), []

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    def step():
        loss = (x * w).exp().sum()
        with Reads():
            loss.backward()

    trace(step)
    assert "mul" in names


def test_the_recorder_is_back_after_a_backward_that_raises():
    x, w = torch.ones(3), torch.ones(3, requires_grad=True)

    def step():
        loss = (x * w).exp().sum()
        loss.backward()
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()
        return (w - 1).log()

    assert any(op.name == "log" for op in trace(step).ops)
