"""Faults inside a backward pass that no hook of a node sees whole."""

import torch
from torch import nn

from labkit import trace
from labkit.probes.verdict import Verdict
from tests.probes.lines import line_of


def test_a_backward_that_builds_a_graph_names_the_forward_line():
    x = torch.tensor([0.0, 1.0], requires_grad=True)

    def step():
        y = torch.sqrt(x)
        (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return grad.square().sum()

    culprit = trace(step).culprit
    assert (culprit.op, culprit.line) == ("SqrtBackward0", line_of(step, "torch.sqrt"))


def test_the_backward_of_torch_func_names_the_forward_line():
    def step():
        def logs(x):
            return torch.log(x).sum()

        return torch.func.jacrev(logs)(torch.tensor([0.0, 1.0])).sum()

    report = trace(step)
    assert report.verdict is Verdict.INF
    assert (report.culprit.op, report.culprit.line) == ("LogBackward0", line_of(step, "torch.log"))


def test_a_hook_of_a_module_that_rounds_a_gradient_to_nothing():
    model, x = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)), torch.ones(5, 2)

    def halved(module, left, entered):
        return (left[0].half().float(),)

    model[1].register_full_backward_hook(halved)
    report = trace(lambda: model(x).sum() * 1e-9, model)
    assert report.verdict is Verdict.DEAD
    assert report.culprit.line == line_of(halved, "half()")
    assert {fate.name for fate in report.harmed} == {"0.weight", "0.bias"}


def test_a_hook_that_multiplies_by_zero_is_meant():
    model, x = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)), torch.ones(5, 2)
    model[0].weight.register_hook(lambda grad: grad * 0.0)
    report = trace(lambda: model(x).sum(), model)
    assert report.verdict is Verdict.HEALTHY


def test_a_bad_row_is_found_although_another_row_is_written_later():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("row", torch.zeros(2))

        def forward(self, x):
            self.row[0] = (x - x).sum() / (x - x).sum()
            self.row[1] = x.sum()
            return self.row[1] * 2.0

    model = Rows()
    report = trace(lambda: model(torch.ones(3)), model)
    assert (report.verdict, report.culprit.op) == (Verdict.NAN, "div")

    def step():
        table = torch.zeros(2)
        table[0] = table.sum() / table.sum()
        table[1] = 1.0
        return table.sum()

    assert trace(step).culprit.op == "div"
