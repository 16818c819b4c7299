"""What a probe sees of the suspect program. Each returns words; none of them names a culprit."""

import inspect
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from labkit.guide.slope import slope_ratio
from labkit.probes.measure import measure
from labkit.probes.trace import trace
from labkit.whodunit.running import kept, paused

PRICES = {  # in points; the more a probe tells, the more it costs
    "batch": 1,
    "outputs": 2,
    "state": 2,
    "moved": 3,
    "gradients": 3,
    "slope": 3,
    "read": 5,
    "trace": 10,
}


def batch(text: str, step: int = 0) -> str:
    """What goes into a step."""
    x, there, hours = paused(text, step)[3]
    lines = [f"measurement {i}: {said(x[..., i][there])}" for i in range(x.shape[-1])]
    empty = int((~there.any(1)).sum())
    return "\n".join([*lines, f"hours: {said(hours)}", f"jobs without parts: {empty} of {len(x)}"])


def outputs(text: str, function: str, step: int = 0) -> str:
    """What a function, or a method of the net, returns in a step."""
    program, net, optimizer, inputs = paused(text, step)
    owner = _owner(program, function)
    seen: list[str] = []
    with _listening(owner, function, seen):
        program.step(net, optimizer, inputs)
    return "\n".join(seen) or f"{function} is not called in a step"


def state(text: str, step: int = 0) -> str:
    """What stays between two steps: buffers, and what the optimizer remembers."""
    _, net, optimizer, _ = paused(text, step)
    lines = [f"buffer {name}: {said(value)}" for name, value in net.named_buffers()]
    named = {id(p): name for name, p in net.named_parameters()}
    for p, memory in optimizer.state.items():
        told = {k: said(v) for k, v in memory.items() if isinstance(v, Tensor) and v.dim()}
        lines += [f"optimizer, {named[id(p)]}, {key}: {words}" for key, words in told.items()]
    return "\n".join(lines)


def moved(text: str) -> str:
    """How far each parameter went in the whole run, relative to its length at the start."""
    start, end = paused(text, 0)[1], kept(text).net
    pairs = zip(start.named_parameters(), end.parameters(), strict=True)
    return "\n".join(f"{name}: {_distance(before, after)}" for (name, before), after in pairs)


def gradients(text: str, step: int = 0) -> str:
    """The gradient of each parameter in a step, before anything is done with it."""
    program, net, _, inputs = paused(text, step)
    loss, _ = program.loss_of(net, inputs)
    named = dict(net.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return "\n".join(
        f"{name}: {'None' if g is None else said(g)}" for name, g in zip(named, found, strict=True)
    )


def slope(text: str, parameter: str, step: int = 0) -> str:
    """Does the gradient of a parameter agree with a finite difference of the loss?"""
    program, net, _, inputs = paused(text, step)
    named = dict(net.named_parameters())
    if parameter not in named:
        raise ValueError(f"parameter: expected one of {', '.join(named)}; got {parameter!r}")

    def loss() -> Tensor:
        return program.loss_of(net, inputs)[0]

    found = torch.autograd.grad(loss(), named[parameter], allow_unused=True)[0]
    if found is None or not found.isfinite().all():
        return f"{parameter}: its gradient is {'None' if found is None else said(found)}"
    ratio = slope_ratio(loss, [named[parameter]], [found])
    if ratio is None:
        return f"{parameter}: a finite difference cannot tell"
    return f"{parameter}: the loss changes {ratio:.2f} times as much as its gradient says"


def read(text: str, function: str) -> str:
    """The source of a function or of a method, with the numbers of its lines."""
    program = paused(text, 0)[0]
    owner = _owner(program, function)
    lines, first = inspect.getsourcelines(getattr(owner, function))
    return "".join(f"{first + i:4}  {line}" for i, line in enumerate(lines)).rstrip()


def trace_step(text: str, step: int = 0) -> str:
    """The tracer's reading of one step: what it blames, and where."""
    program, net, optimizer, inputs = paused(text, step)
    report = trace(lambda: program.step(net, optimizer, inputs), model=net, optimizers=optimizer)
    return str(report)


def said(value: Tensor) -> str:
    """A tensor in words: what is not finite, its range, how much of it is zero."""
    stats = measure(value.detach().float())
    bad = ((stats.nan, "NaN"), (stats.pos_inf, "+Inf"), (stats.neg_inf, "-Inf"))
    parts = [f"{count} {word}" for count, word in bad if count]
    if stats.bad < stats.size:
        parts.append(f"from {stats.low:.3g} to {stats.high:.3g}")
    if stats.zero:
        parts.append(f"{stats.zero} zero")
    return f"{', '.join(parts)} (of {stats.size})"


def functions(program: Any) -> dict[str, Any]:
    """Name of each function and method, and what holds it."""
    net = {n: program.Net for n, f in vars(program.Net).items() if inspect.isfunction(f)}
    plain = {n: program for n, f in vars(program).items() if inspect.isfunction(f)}
    return {**plain, **net}


def _owner(program: Any, function: str) -> Any:
    known = functions(program)
    if function not in known:
        raise ValueError(f"function: expected one of {', '.join(known)}; got {function!r}")
    return known[function]


@contextmanager
def _listening(owner: Any, function: str, seen: list[str]):
    """Replace a function by one that says what it returns. The program's own names are changed."""
    plain: Callable = getattr(owner, function)

    def listens(*values: Any) -> Any:
        out = plain(*values)
        parts = out if isinstance(out, tuple) else (out,)
        for number, part in enumerate(p for p in parts if isinstance(p, Tensor)):
            graph = "" if part.requires_grad else ", needs no gradient"
            seen.append(f"{function}, value {number}: {said(part)}{graph}")
        return out

    _put(owner, function, listens)
    try:
        yield
    finally:
        _put(owner, function, plain)


def _put(owner: Any, function: str, made: Callable) -> None:
    """Give a name another meaning, in a class or in the program's own names."""
    if not isinstance(owner, type):
        owner.step.__globals__[function] = made
    setattr(owner, function, made)


def _distance(before: Tensor, after: Tensor) -> str:
    if not after.isfinite().all():
        return "not finite any more"
    change = float((after.detach() - before.detach()).norm() / before.detach().norm())
    return "not moved by a bit" if not change else f"moved by {change:.2g} of its length"
