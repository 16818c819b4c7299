"""`debug_forward_pass`: where does the first NaN or Inf come from? Over layers, or over a knob."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

from labkit.guide.births import Birth, first_birth
from labkit.guide.bisect_knob import Edge, bisect_knob
from labkit.guide.check_tensor import check_tensor
from labkit.guide.leaves import finite, leaves
from labkit.guide.lines import BAD, GOOD, LOOK, Line
from labkit.guide.same_noise import SameNoise
from labkit.models.vae import NBVAE, elbo_loss
from labkit.probes.trace import trace


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What was found; true if all is finite. The lines were printed."""

    lines: tuple[Line, ...]
    birth: Birth | None  # the first operator that made a bad value
    edge: Edge | None  # of the knob

    def __bool__(self) -> bool:
        return all(line.ok for line in self.lines)

    def __repr__(self) -> str:
        return next((str(line) for line in self.lines if line.name == "first"), "nothing is born")


def debug_forward_pass(
    model: nn.Module,
    x: Tensor,
    tissue_onehot: Tensor | None = None,
    *more: Any,
    loss: Callable[..., Any] | None = None,
    generators: Iterable[Generator] = (),
    knob: Callable[[float], Any] | None = None,
    between: tuple[float, float] = (0.0, 100.0),
) -> Diagnosis:
    """Print what every layer, loss term and gradient holds; then halve down to the first bad one.

    Every run sees the random numbers and buffers of this moment, and they are put back at the
    end, as are the parameters. ``.grad`` is not touched.

    Args:
        model: any module.
        x: its first input; `tissue_onehot` and `more` follow, where they are given.
        loss: ``loss(model, x, ...)`` gives a scalar, or a scalar and a dict of its terms. None:
            the ELBO for the lab's NBVAE; for other models the forward pass alone is looked at.
        generators: that the model draws from, besides the global ones.
        knob: sets something to a number. With it the exact float32 is found at which loss or
            gradient break; the layers are then shown at that value.
        between: a healthy and a broken value of the knob.

    Returns:
        The lines, the birth and the edge.

    Raises:
        ValueError: the knob is healthy, or broken, at both ends.

    The guide's original is blind where (each shown in a test):
        It looks at no loss term and no gradient: ✅ everywhere while the loss is Inf.
        It draws new noise in each call, so it need not see the failure at all.
        It calls input_layer(x) without the tissue: that raises.
        It knows one architecture by heart, and it scans; it never halves anything.

    Source: the guide, 4.1.
    """
    inputs = (x, *([] if tissue_onehot is None else [tissue_onehot]), *more)
    if loss is None and isinstance(model, NBVAE):
        loss = _elbo
    program = partial(_program, model, inputs, loss)
    with _kept(model if knob else None), SameNoise(model, generators) as noise:
        again = _again(noise, program)
        edge = _edge(knob, between, again)
        lines = _inputs(model, inputs) + _layers(model, again)
        if edge:
            lines.append(Line(BAD, "knob", str(edge)))
        bad = any(line.mark == BAD for line in lines)
        birth = first_birth(again) if bad else None
        if birth:
            lines.append(_told(birth, model))
        if bad and loss:
            step = _again(noise, lambda: loss(model, *inputs))
            lines.append(Line(BAD, "trace", str(trace(step, model))))
    for line in lines:
        print(f"{line.name}: {line.mark} {line.text}")
    return Diagnosis(tuple(lines), birth, edge)


@contextmanager
def _kept(model: nn.Module | None) -> Iterator[None]:
    """Whatever a knob does to the parameters, it is put back."""
    kept = [(p, p.detach().clone()) for p in model.parameters()] if model is not None else []
    try:
        yield
    finally:
        with torch.no_grad():
            for p, old in kept:
                p.copy_(old)


def _elbo(model: NBVAE, x: Tensor, tissue: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    return elbo_loss(x, tissue, model)


Values = dict[str, Tensor]


def _program(model: nn.Module, inputs: tuple, loss) -> tuple[Values, Values]:
    """Loss terms and gradients; of a model without a loss, nothing but its forward pass."""
    if loss is None:
        model(*inputs)
        return {}, {}
    value = loss(model, *inputs)
    total, terms = value if isinstance(value, tuple) else (value, {})
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not total.requires_grad or not named:
        return {**terms, "loss": total}, {}
    grads = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    found = zip(named, grads, strict=True)
    return {**terms, "loss": total}, {name: g for name, g in found if g is not None}


def _again(noise: SameNoise, program: Callable) -> Callable:
    def again():
        noise.again()
        return program()

    return again


def _edge(knob, between: tuple[float, float], again: Callable) -> Edge | None:
    if knob is None:
        return None

    def broken(value: float) -> bool:
        knob(value)
        terms, grads = again()
        return not all(map(finite, (*terms.values(), *grads.values())))

    edge = bisect_knob(broken, *between)
    knob(edge.broken)
    return edge


def _inputs(model: nn.Module, inputs: tuple) -> list[Line]:
    names = ("input x", "input tissue_onehot", *(f"input {i}" for i in range(2, len(inputs))))
    found = [
        _line(f"{name}{path}", tensor)
        for name, value in zip(names, inputs, strict=False)
        for path, tensor in leaves(value)
    ]
    named = [*model.named_parameters(), *model.named_buffers()]
    return found + [_line(f"parameter {name}", p) for name, p in named if not finite(p)]


def _layers(model: nn.Module, again: Callable) -> list[Line]:
    lines: list[Line] = []
    handles = [
        module.register_forward_hook(partial(_hook, lines, name or "output"))
        for name, module in model.named_modules()
    ]
    try:
        terms, grads = again()
    finally:
        for handle in handles:
            handle.remove()
    lines += [_line(name, term) for name, term in terms.items()]
    bad = [_line(f"gradient of {name}", g) for name, g in grads.items() if not finite(g)]
    if grads and not bad:
        bad = [Line(GOOD, "gradients", f"all {len(grads)} finite")]
    return lines + bad


def _hook(lines: list[Line], name: str, module: nn.Module, args: tuple, output: Any) -> None:
    lines += [_line(f"{name}{path}", tensor) for path, tensor in leaves(output)]


def _line(name: str, tensor: Tensor) -> Line:
    told = check_tensor(tensor)
    mark = next(mark for mark in (GOOD, LOOK, BAD) if told.startswith(mark.strip()))
    text = told.removeprefix(mark.strip()).strip()
    return Line(BAD if not finite(tensor) else mark, name, text)


def _told(birth: Birth, model: nn.Module) -> Line:
    paths = {id(module): name for name, module in model.named_modules()}
    where = paths.get(id(birth.module)) or "outside every layer"
    line = f", {os.path.basename(birth.file)}:{birth.line}" if birth.line else f", in {birth.node}"
    text = (
        f"{birth.op} ({where}{line}), operator {birth.number + 1} of {birth.total}, "
        f"found in {birth.runs} runs; from {' and '.join(birth.inputs)} to {birth.output}"
    )
    return Line(BAD, "first", text)
