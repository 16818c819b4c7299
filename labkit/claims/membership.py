"""Who is in the optimizer, and who is reached: the gradient flow checklist (guide, 5)."""

import torch
from torch import nn

from labkit.claims.entry import Ruling, claim, truth
from labkit.claims.subjects import error_of, linear, normal


@claim(
    "G88",
    chinese="确认所有需要训练的模块在优化器中",
    english="Make sure that every module to be trained is in the optimizer.",
    where="quick reference, gradient flow",
    verdict="holds",
)
def what_is_not_in_the_optimizer_does_not_move(created: str = "before") -> Ruling:
    """A head that is replaced after, or before, the optimizer was created."""
    model = nn.Sequential(linear(4, 4), linear(4, 1, seed=1))
    old = torch.optim.SGD(model.parameters(), 0.1)
    model[1] = linear(4, 1, seed=2)
    optimizer = old if created == "before" else torch.optim.SGD(model.parameters(), 0.1)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [n for n, p in model.named_parameters() if id(p) not in held]
    start, x = model[1].weight.detach().clone(), normal(16, 4)
    for _ in range(5):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    moved, grad = float((model[1].weight - start).detach().norm()), model[1].weight.grad.norm()
    return truth(bool(missing) and moved == 0), (
        f"A head that was replaced behind the optimizer's back has the gradient {grad:.2g} and "
        "moves "
        f"by {moved:g} in 5 steps; comparing ids finds {', '.join(missing) or 'none'}, and none of "
        "the guide's tools compares them."
    )


@claim(
    "G89",
    chinese="使用autograd.grad()手动验证梯度路径",
    english="Use autograd.grad() to verify a gradient's path by hand.",
    where="quick reference, gradient flow",
    verdict="holds with a condition",
)
def autograd_grad_verifies_a_path(allow_unused: bool = False) -> Ruling:
    """A connected inner tensor; one that is not used; one behind a dead clamp."""
    x, unused = torch.tensor(15.0, requires_grad=True), torch.ones(1, requires_grad=True)
    inner = x * 2

    def ask(of, loss):
        return torch.autograd.grad(loss, of, retain_graph=True, allow_unused=allow_unused)[0]

    found, untouched = float(ask(inner, inner.square())), x.grad is None
    error = error_of(lambda: ask(unused, inner))
    clamped = float(ask(x, inner.clamp(-10, 10)))
    connected = found != 0 and untouched
    return truth(connected and not error and clamped != 0, sometimes=connected), (
        f"It works on inner tensors ({found:g}) and leaves .grad alone; a tensor that is not used "
        f"raises {error or 'nothing'} unless allow_unused is set, and a path through a dead clamp "
        "is "
        f"connected with the gradient {clamped:g}."
    )


@claim(
    "G25",
    chinese="参数初始化避免过大或过小",
    english="Parameters must not start too large or too small.",
    where="quick reference, stability",
    verdict="holds",
)
def the_start_must_fit(layers: int = 20, width: int = 64) -> Ruling:
    """A stack of ReLU layers without bias, its weights of three sizes."""
    right = (2 / width) ** 0.5
    size = {std: _last_activation(std, layers, width) for std in (1.0, right, 0.01)}
    large, fit, small = size.values()
    half = _last_activation(1.0, layers, width, torch.float16)
    return truth(large > 1e6 and small < 1e-6 and 1e-3 < fit < 1e3), (
        f"Behind {layers} layers of width {width} the largest activation is {large:.0e} for "
        "weights "
        f"of spread 1, {small:.0e} for 0.01 and {fit:.1f} for sqrt(2/{width}); in float16 spread 1 "
        f"gives {half:g}."
    )


def _last_activation(std: float, layers: int, width: int, dtype=torch.float32) -> float:
    h = normal(32, width, dtype=dtype)
    for layer in range(layers):
        h = torch.relu(h @ (std * normal(width, width, seed=layer + 1)).to(dtype))
    return float(h.abs().max())
