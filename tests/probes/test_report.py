"""What a report says: headroom, chain, gradients, names, stable words."""

import math

import pytest
import torch
from torch import nn

from labkit import trace
from labkit.probes.frames import file_name
from labkit.probes.verdict import Verdict


@pytest.fixture
def pair():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    return model, torch.rand(5, 3)


def test_gradients_stand_at_the_ops_that_they_arrive_at(pair):
    model, x = pair
    kept = {}

    def step():
        h = model[0](x)
        h.register_hook(lambda grad: kept.update(h=grad.clone()))
        return model[1](h).square().sum()

    report = trace(step, model)
    hidden = next(op for op in report.ops if op.name == "addmm" and op.module == "0")
    assert hidden.gradient.large == pytest.approx(kept["h"].abs().max().item())
    assert hidden.node == "AddmmBackward0"
    backward = [op for op in report.ops if op.phase == "backward" and op.forward == hidden.index]
    assert [op.name for op in backward] == ["AddmmBackward0"]


def test_sources_have_kinds_and_qualified_names(pair):
    model, x = pair
    report = trace(lambda: (model(x) * torch.tensor(2.0)).sum(), model)
    sources = {op.name: op.kind for op in report.ops if op.phase == "source"}
    wanted = {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert {name for name, kind in sources.items() if kind == "parameter"} == wanted
    assert sources["x"] == "input"
    assert "constant" in sources.values()
    linear = next(op for op in report.ops if op.name == "addmm")
    assert {report.ops[p].name for p in linear.parents} == {"0.bias", "x", "t"}


def test_fates_carry_histogram_and_norm(pair):
    model, x = pair
    report = trace(lambda: model(x).square().sum(), model)
    grads = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    for fate, grad in zip(report.parameters, grads, strict=True):
        assert fate.norm == pytest.approx(grad.double().norm().item())
        assert sum(fate.gradient.decades) + fate.gradient.zero == grad.numel()


def test_headroom_names_the_op_that_breaks_first():
    x = torch.full((4,), 80.0, requires_grad=True)
    report = trace(lambda: (torch.exp(x) * 1e-30 + x).sum())
    first = report.breaks_first()
    assert first.name == "exp"
    room = next(room for room in report.headroom if room.position == first.index)
    assert room.above == pytest.approx(128 - 80 / math.log(2), abs=1e-3)
    # one power of two is log(2) of logvar: this much further and exp overflows
    beyond = 80 + (room.above + 0.01) * math.log(2)
    with torch.no_grad():
        x.fill_(beyond)
    assert trace(lambda: torch.exp(x).sum()).verdict is Verdict.INF


def test_headroom_sees_underflow_and_leaves_constants_out():
    x = torch.full((4,), -80.0, requires_grad=True)

    def step():
        hidden = torch.full((4,), torch.finfo(torch.float32).min)
        return (torch.exp(x) + torch.softmax(hidden + 0 * x.detach(), 0)).sum()

    report = trace(step)
    assert report.breaks_first(below=True).name == "exp"


def test_the_chain_goes_from_birth_through_the_mask_to_the_parameter():
    x = torch.tensor([100.0, -1.0], requires_grad=True)

    def step():
        big = torch.exp(x)
        return torch.where(x > 0, x, big).sum()

    report = trace(step)
    events = [link.event for link in report.chain]
    assert events == ["born", "masked", "reborn", "carried", "harmed"]
    assert report.culprit.phase == "forward"
    assert report.culprit.index == (0,)
    names = [report.ops[link.position].name for link in report.chain[:4]]
    assert names == ["exp", "where", "ExpBackward0", "AccumulateGrad"]


def test_first_bad_element_is_which_cell_and_which_gene():
    counts = torch.rand(6, 5)
    counts[4, 2] = float("nan")
    w = torch.rand(5, 2, requires_grad=True)
    culprit = trace(lambda: (counts @ w).sum()).culprit
    assert (culprit.phase, culprit.name, culprit.index) == ("input", "counts", (4, 2))


def test_steps_are_counted_from_zero(pair):
    model, x = pair
    count = [0]

    def step():
        count[0] += 1
        return model(x).sum() * (1.0 / torch.tensor(2.0 - count[0]))

    report = trace(step, model, steps=3)
    assert (report.culprit.step, report.culprit.op, report.steps) == (1, "reciprocal", 3)


def test_equal_programs_have_equal_topology_and_broken_ones_keep_it(pair):
    model, x = pair
    shift = [0.0]

    def step():
        return torch.exp(model(x) + shift[0]).mean()

    calm, again = trace(step, model), trace(step, model)
    shift[0] = 200.0
    wild = trace(step, model)
    assert calm.topology == again.topology == wild.topology
    assert wild.verdict is Verdict.INF


def test_notebook_cells_have_stable_names():
    assert file_name("<ipython-input-7-0123abcd>") == "cell 7"
    assert file_name("/somewhere/vae.py") == "vae.py"


def test_without_a_model_leaves_are_called_as_the_user_calls_them():
    scale = torch.ones(2, requires_grad=True)
    inner = {"shift": torch.zeros(2, requires_grad=True)}
    report = trace(lambda: (scale * 3 + inner["shift"]).sum())
    assert {fate.name for fate in report.parameters} == {"scale", "inner['shift']"}


def test_nothing_is_drawn_and_nothing_heavy_is_imported():
    import subprocess
    import sys

    code = (
        "import sys; import labkit; labkit.trace;"
        "heavy = {'matplotlib', 'ipywidgets', 'torch._dynamo', 'IPython'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_function_called_inside_a_module_belongs_to_it():
    def squash(h):
        return torch.tanh(h)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(3, 2))

        def forward(self, x):
            return squash(self.inner(x)).sum()

    model = Net()
    outer = nn.ModuleDict({"net": model})
    report = trace(lambda: outer["net"](torch.ones(2, 3)) * 2, outer)
    found = {op.name: (op.module, op.function) for op in report.ops if op.phase == "forward"}
    assert found["tanh"] == ("net", "squash")
    assert found["addmm"] == ("net.inner.0", "Net.forward")
    assert found["mul"] == ("", "<lambda>")


def test_torchs_own_copies_are_no_ops_of_the_users():
    w = torch.ones(3, requires_grad=True)
    report = trace(lambda: torch.exp(w).detach().sum() + torch.exp(w).sum())
    forward = [op.name for op in report.ops if op.phase == "forward"]
    assert forward == ["exp", "detach", "sum", "exp", "sum", "add"]
    w.register_hook(lambda grad: grad * 2)  # now the recorder looks on during the backward
    report = trace(lambda: torch.exp(w).sum())
    assert [op.name for op in report.ops if op.phase == "forward"] == ["exp", "sum"]


def test_every_storage_handle_is_freed(monkeypatch):
    freed = []
    real = torch.UntypedStorage._free_weak_ref
    monkeypatch.setattr(
        torch.UntypedStorage, "_free_weak_ref", lambda handle: freed.append(handle) or real(handle)
    )
    w = torch.ones(3, requires_grad=True)
    report = trace(lambda: (w * 2).exp().sum())
    assert len(freed) >= sum(op.phase == "forward" for op in report.ops) - 1
