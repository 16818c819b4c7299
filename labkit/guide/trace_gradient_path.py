"""`trace_gradient_path`: does the gradient of a loss reach these tensors, and how large is it?"""

import torch
from torch import Tensor

from labkit.guide.check_tensor import check_tensor
from labkit.guide.leaves import finite, reals
from labkit.guide.lines import BAD, GOOD, LOOK, Line, Lines, printed

FREED = "the graph is gone: backward already ran. Call this before loss.backward()"


def trace_gradient_path(loss: Tensor, /, *variables: Tensor, **named: Tensor) -> Lines:
    """Print one line a variable: the norm of the loss's gradient there, or why there is none.

    Writes no ``.grad``, keeps no hooks and leaves the graph as it was, so a backward can follow.
    Until that backward the graph's saved tensors stay in memory, as they would without this call.

    Args:
        loss: a scalar. Before its backward; after it only the ``.grad`` of leaves is left to tell.
        *variables: leaves or intermediate tensors; printed as ``var0``, ``var1``, ...
        **named: the same with a name of your own.

    Returns:
        The printed lines.

    Raises:
        ValueError: the loss is not a scalar.
        TypeError: a variable is not a tensor.

    The guide's original is blind where (each shown in a test):
        An intermediate tensor keeps no ``.grad``: it reports a healthy path as cut.
        It runs backward: called before yours it doubles every gradient, after yours it raises.
        A ``.grad`` left over from an earlier backward passes for a path.
        NaN, Inf and an exactly zero gradient all get the green mark.

    Source: the guide, 1.5.
    """
    named = {**{f"var{i}": variable for i, variable in enumerate(variables)}, **named}
    _check(loss, named)
    if not loss.requires_grad:
        cut = "the loss has no graph: built under no_grad, or from .item() or .detach()"
        return printed([Line(BAD, "loss", cut)])
    wanted = {name: variable for name, variable in named.items() if variable.requires_grad}
    try:
        found = torch.autograd.grad(loss, list(wanted.values()), retain_graph=True,
                                    allow_unused=True) if wanted else ()  # fmt: skip
    except RuntimeError as error:
        if "second time" not in str(error):
            raise
        return printed([_left(name, variable) for name, variable in named.items()])
    grads = dict(zip(wanted, found, strict=True))
    return printed([_line(name, variable, grads) for name, variable in named.items()])


def _check(loss: Tensor, named: dict[str, Tensor]) -> None:
    for name, variable in {"loss": loss, **named}.items():
        if not isinstance(variable, Tensor):
            raise TypeError(f"{name}: expected a tensor; got {type(variable).__name__}")
    if loss.numel() != 1:
        raise ValueError(f"loss: expected a scalar; got shape {tuple(loss.shape)}. Sum it first")


def _line(name: str, variable: Tensor, grads: dict[str, Tensor | None]) -> Line:
    if name not in grads:
        return Line(BAD, name, "needs no gradient: detached, made under no_grad, or a constant")
    grad = grads[name]
    if grad is None:
        return Line(BAD, name, "no path from the loss: cut by detach or no_grad, or not used")
    return _judged(name, grad)


def _judged(name: str, grad: Tensor) -> Line:
    if not finite(grad):
        return Line(BAD, name, f"gradient {check_tensor(grad)}")
    if not grad.count_nonzero():
        return Line(LOOK, name, "connected, but the gradient is exactly 0: clamp, dead unit, mask")
    norm = torch.linalg.vector_norm(reals(grad))
    return Line(GOOD, name, f"gradient norm = {norm:.4e}")


def _left(name: str, variable: Tensor) -> Line:
    """After a backward: the sum that a leaf holds, with a word of warning."""
    if variable.is_leaf and variable.grad is not None:
        norm = torch.linalg.vector_norm(reals(variable.grad))
        return Line(LOOK, name, f".grad holds a norm of {norm:.4e}, over all backwards so far")
    return Line(LOOK, name, FREED)
