"""`trace_gradient_path` beside the guide's original, at each of its blind spots."""

import warnings

import pytest
import torch
from originals import original

from labkit.guide import trace_gradient_path

theirs = original("trace_gradient_path")


def path():
    torch.manual_seed(0)
    z0 = torch.randn(10, 4, requires_grad=True)
    z1 = z0 @ torch.randn(4, 4)
    return z0, z1, z1.square().mean()


def test_an_intermediate_tensor_has_a_path(capsys):
    z0, z1, loss = path()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of .grad of a non-leaf
        theirs(loss, z0, z1)
    assert "❌ var1" in capsys.readouterr().out
    found = trace_gradient_path(loss, z0, z1=z1)
    expected = torch.autograd.grad(loss, [z0, z1])
    assert found
    assert f"{expected[0].norm():.4e}" in found["var0"].text
    assert f"{expected[1].norm():.4e}" in found["z1"].text


def test_it_doubles_no_gradient():
    z0, _, loss = path()
    theirs(loss, z0)
    loss.backward()
    doubled = z0.grad
    z0, _, loss = path()
    trace_gradient_path(loss, z0)
    assert z0.grad is None
    loss.backward()
    assert torch.equal(doubled, 2 * z0.grad)


def test_after_a_backward_it_says_so():
    z0, z1, loss = path()
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        theirs(loss, z0)
    found = trace_gradient_path(loss, z0, z1)
    assert ".grad holds a norm of" in found["var0"].text
    assert "before loss.backward()" in found["var1"].text


def test_an_old_gradient_is_no_path(capsys):
    z0, _, loss = path()
    loss.backward()
    other = (z0.detach() * torch.ones(4, requires_grad=True)).sum()
    theirs(other, z0)
    assert "✅" in capsys.readouterr().out
    assert "no path" in trace_gradient_path(other, z0)["var0"].text


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (lambda z: z.clamp(5, 6).sum(), "exactly 0"),
        (lambda z: z.sub(z).abs().sqrt().sum(), "NaN"),
        (lambda z: (z * 0).sqrt().sum() + (1 / (z * 0 + 1e-38)).sum(), "NaN"),
    ],
)
def test_zero_and_bad_gradients_are_not_well(capsys, form, words):
    z = torch.full((3,), 0.5, requires_grad=True)
    theirs(form(z), z)
    assert "✅" in capsys.readouterr().out
    assert words in trace_gradient_path(form(z), z)["var0"].text


def test_what_is_cut_is_told():
    z0, z1, _ = path()
    w = torch.ones(4, requires_grad=True)
    found = trace_gradient_path((z1.detach() * w).sum(), z0, w=w, d=z1.detach())
    assert [line.mark for line in found.lines] == ["❌", "✅", "❌"]
    assert "detached" in found["d"].text
    assert "no graph" in trace_gradient_path(z1.detach().sum(), z0)["loss"].text


def test_bad_arguments_are_named():
    z0, z1, _ = path()
    with pytest.raises(ValueError, match="expected a scalar"):
        trace_gradient_path(z1, z0)
    with pytest.raises(TypeError, match="var0: expected a tensor"):
        trace_gradient_path(z1.sum(), None)
