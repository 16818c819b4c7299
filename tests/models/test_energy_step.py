"""Energy distance in a training step: references, dtypes, what waits for backward, memory."""

import subprocess
import sys

import pytest
import torch
from clouds import HARD, VALUE, M, N, X, Y, differentiated

from labkit.models.energy import Reference, energy_distance, energy_distance_guide


def test_a_reference_is_the_same_sample_and_costs_its_own_distances_once(monkeypatch):
    from labkit.models import energy

    real, shares = energy.weighed_sum, []
    monkeypatch.setattr(energy, "weighed_sum", lambda *a: shares.append(a[2]) or real(*a))
    reference = Reference.of(Y)
    for _ in range(2):
        value, (to_x,) = differentiated(X, reference)
    assert [in_y for _, _, in_y in shares] == [0.0, 0.0]
    full, (want, _) = differentiated(X, Y)
    assert shares[2][2] != 0
    assert abs(float(value - full)) <= VALUE * float(torch.cdist(X, Y).mean())
    assert (to_x - want).abs().max() <= 1e-6 * want.abs().max()  # added up in another order


def test_the_upstream_gradient_is_a_factor():
    x = X[:20].clone().requires_grad_()
    (-3 * energy_distance(x, Y)).backward()
    torch.testing.assert_close(x.grad, -3 * differentiated(X[:20], Y)[1][0])


def test_without_gradients_the_value_is_the_same():
    x, (value, _) = X.clone().requires_grad_(), differentiated(X, Y)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            again = energy_distance(x, Y)
        assert not again.requires_grad
        assert abs(float(again - value)) <= VALUE * float(torch.cdist(X, Y).mean())


def test_without_gradients_none_are_computed(monkeypatch):
    from labkit.models import energy

    real, gradients = energy.weighed_sum, []

    def spied(*args, **options):
        result = real(*args, **options)
        gradients.extend(result[1:])
        return result

    monkeypatch.setattr(energy, "weighed_sum", spied)
    with torch.no_grad():
        energy_distance(X.clone().requires_grad_(), Y)
    assert gradients == [None] * 2


@pytest.mark.parametrize("case", ["plain", "log counts"])
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(half, case):
    x, y = HARD[case]
    plain, gradients = differentiated(x, y)
    alone = energy_distance(x, Reference.of(y))
    with torch.autocast("cpu", dtype=half):
        cast, again = differentiated(x, y)
        assert torch.equal(energy_distance(x, Reference.of(y)), alone)
    assert torch.equal(cast, plain)
    assert all(torch.equal(a, b) for a, b in zip(gradients, again, strict=True))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(half):
    x, y = X.to(half), Y.to(half)
    value, (to_x, to_y) = differentiated(x, y)
    full, (wide_x, wide_y) = differentiated(x.float(), y.float())
    assert torch.equal(value, full)
    assert torch.equal(to_x, wide_x.to(half))
    assert torch.equal(to_y, wide_y.to(half))


def test_a_second_derivative_is_an_error_and_never_silence():
    x, y = X[:9].clone().requires_grad_(), Y[:8].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy_distance(x, y), x, create_graph=True)
    for wrt in (x, y):
        with pytest.raises(NotImplementedError, match="first derivative only"):
            torch.autograd.grad(gradient.square().sum(), wrt, retain_graph=True)
    penalised = energy_distance(x, y) + gradient.square().sum()
    with pytest.raises(NotImplementedError, match=r"Detach the gradient"):
        penalised.backward()


def test_two_runs_give_the_same_bits():
    first, second = differentiated(X, Y), differentiated(X, Y)
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))


def test_what_waits_for_backward_is_linear_in_the_rows():
    def saved(form) -> int:
        sizes = []
        hooks = torch.autograd.graph.saved_tensors_hooks
        with hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            form(X.clone().requires_grad_(), Y)
        return sum(sizes)

    assert saved(energy_distance) <= 3 * X.numel() + Y.numel()
    assert saved(lambda x, y: energy_distance_guide(x, y, chunk=50)) > 2 * N * M


PEAK = """
import torch
from labkit.models.energy import energy_distance
torch.set_num_threads(1)
x, y = (torch.randn(6000, 32).requires_grad_() for _ in range(2))
energy_distance(x[:600], y[:600]).backward()  # loads what is loaded once
def peak(): return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
before = peak()
energy_distance(x, y).backward()
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_forward_and_backward_add_little_memory():
    run = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 40_000  # kB; one distance matrix of it is 144 000
