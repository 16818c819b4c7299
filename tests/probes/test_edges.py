"""Odd inputs, code that raises, nested use, threads, and what is left behind."""

import sys
import threading

import pytest
import torch
from torch import nn

from labkit import trace
from labkit.probes.verdict import Verdict


def modes():
    torch_function = torch.overrides._get_current_function_mode_stack()
    return torch._C._len_torch_dispatch_stack(), len(torch_function)


def hooks():
    optim, module = sys.modules["torch.optim.optimizer"], nn.modules.module
    stores = (
        *(optim._global_optimizer_pre_hooks, optim._global_optimizer_post_hooks),
        *(module._global_forward_hooks, module._global_forward_pre_hooks),
    )
    return sum(len(store) for store in stores)


@pytest.fixture(autouse=True)
def nothing_left_behind():
    before = (modes(), hooks(), torch.is_grad_enabled(), torch.get_default_dtype())
    before += (torch.is_anomaly_enabled(), torch.random.get_rng_state().sum().item())
    yield
    after = (modes(), hooks(), torch.is_grad_enabled(), torch.get_default_dtype())
    after += (torch.is_anomaly_enabled(),)
    assert after == before[:-1]


def test_the_random_stream_is_the_users_alone():
    torch.manual_seed(5)
    wanted = [torch.rand(3), torch.rand(3)]
    torch.manual_seed(5)
    model = torch.nn.Linear(1, 1).requires_grad_(False)  # draws before the trace
    torch.manual_seed(5)
    drawn = []

    def step():
        drawn.append(torch.rand(3))
        return (drawn[-1] * model.weight).sum()

    trace(step, steps=2)
    assert torch.equal(torch.stack(drawn), torch.stack(wanted))


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(0),
        torch.zeros(3, 0),
        torch.arange(5),
        torch.tensor([True, False]),
        torch.rand(3, dtype=torch.complex64),
        torch.rand(3, dtype=torch.float16),
        torch.rand(3, dtype=torch.bfloat16),
        torch.rand(3, dtype=torch.float64),
        torch.eye(3).to_sparse(),
        torch.tensor(3),
        torch.tensor(float("nan")),
        torch.rand(3, device="meta"),
    ],
    ids=lambda value: f"{value.dtype}-{tuple(value.shape)}-{value.layout}-{value.device}",
)
def test_every_kind_of_tensor_passes_through(value):
    w = torch.ones(3, requires_grad=True)

    def step():
        value.clone()
        value * 2
        return w.sum()

    assert trace(step).verdict is Verdict.HEALTHY


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_compressed_sparse_rows():
    w = torch.ones(3, requires_grad=True)
    rows = torch.eye(3).to_sparse_csr()
    assert trace(lambda: (rows @ w[:, None]).sum()).verdict is Verdict.HEALTHY


def test_an_empty_reduction_is_a_birth():
    w = torch.ones(3, requires_grad=True)
    report = trace(lambda: (w[:0] * 2).mean() + w.sum())
    assert (report.verdict, report.culprit.op) == (Verdict.NAN, "mean")


def test_whatever_the_code_raises_passes_through():
    w = torch.ones(3, requires_grad=True)

    def step():
        w.exp().sum().backward()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        trace(step)
    assert caught.value.report.verdict is Verdict.HEALTHY
    assert "traced until then" in caught.value.__notes__[0]


def test_an_error_inside_a_module_and_inside_backward():
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            raise ZeroDivisionError("in backward")

    w = torch.ones(3, requires_grad=True)
    with pytest.raises(ZeroDivisionError):
        trace(lambda: Broken.apply(w).sum())
    with pytest.raises(RuntimeError, match="shapes"):
        trace(lambda: nn.Linear(2, 2)(torch.ones(1, 3)).sum())


def test_autograds_complaint_becomes_a_line():
    w = torch.ones(3, requires_grad=True)

    def overwritten():
        y = torch.sigmoid(w)
        y[0] = 2.0  # the culprit
        y.sum().backward()

    report = trace(overwritten)
    assert (report.verdict, report.culprit.source) == (Verdict.SEVERED, "y[0] = 2.0  # the culprit")
    assert "inplace" in report.error

    def cut():
        loss = (w * 2).sum().detach()  # the culprit
        loss.backward()

    report = trace(cut)
    assert (report.verdict, report.culprit.op) == (Verdict.SEVERED, "detach")


def test_a_trace_inside_a_trace_is_refused_and_the_outer_one_lives():
    w = torch.ones(3, requires_grad=True)

    def step():
        with pytest.raises(RuntimeError, match="already runs in this thread"):
            trace(lambda: w.sum())
        return torch.exp(w * 100).sum()

    assert trace(step).culprit.op == "exp"


def test_threads_do_not_meet():
    found = {}

    def work(name, scale):
        model = nn.Linear(2, 1)
        nn.init.constant_(model.weight, 0.5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def step():
            optimizer.zero_grad()
            loss = (model(torch.ones(3, 2)) * scale).exp().mean()
            loss.backward()
            optimizer.step()
            return loss

        found[name] = trace(step, model, optimizer, steps=3).verdict

    threads = [
        threading.Thread(target=work, args=("calm", 1e-3)),
        threading.Thread(target=work, args=("wild", 1e5)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found["calm"] is Verdict.HEALTHY
    assert found["wild"] is not Verdict.HEALTHY


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 3}, "expected a function"),
        ({"step": lambda: None, "steps": 0}, "at least 1"),
        ({"step": lambda: None, "model": 3}, "torch.nn.Module"),
        ({"step": lambda: None, "optimizers": [3]}, "torch.optim"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        trace(**arguments)


def test_gradients_that_were_there_are_there_again():
    model = nn.Linear(2, 1)
    model.weight.grad = torch.full((1, 2), 7.0)
    trace(lambda: model(torch.ones(3, 2)).sum(), model)
    assert model.weight.grad.tolist() == [[7.0, 7.0]]
    assert model.bias.grad is None


def test_the_report_waits_for_the_end_of_the_block():
    with trace() as tracing, pytest.raises(RuntimeError, match="still runs"):
        _ = tracing.report
    assert tracing.report.verdict is Verdict.UNTRAINED
    with pytest.raises(RuntimeError, match="not running"):
        tracing.step()


def test_storage_handles_are_given_back():
    w = torch.ones(3, requires_grad=True)
    with trace() as tracing:
        y = w * 2
        y.sum().backward()
    tape = tracing.tape
    assert tape.storages
    _ = tracing.report
    assert not tape.storages
