# ruff: noqa: PT028 - the guide gave this tool its name; pytest is told that it is no test
"""`test_extreme_inputs`: hard inputs and hard settings for any model, forward and backward."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Generator, Tensor, nn

from labkit.guide.leaves import finite
from labkit.guide.lines import BAD, GOOD, Line, Lines, printed
from labkit.guide.same_noise import SameNoise
from labkit.models.vae import NBVAE, elbo_loss

Loss = Callable[..., Tensor]
REFUSED = (ValueError, FloatingPointError)  # a clear no is an answer too
LAB_SWEEP = {  # of the lab's model: heads whose exponential is taken
    "encoder.fc_logvar.bias": (-100.0, 100.0),
    "decoder.fc_r.bias": (-100.0, 100.0),
    "decoder.fc_mu.bias": (-100.0, 100.0),
}


def test_extreme_inputs(
    model: nn.Module | None = None,
    loss: Loss | None = None,
    inputs: Mapping[str, tuple] | None = None,
    example: Sequence[Tensor] = (),
    sweep: Mapping[str, Sequence[float]] | None = None,
    large: float = 1e6,
    small: float = 1e-6,
    generators: Iterable[Generator] = (),
) -> Lines:
    """Run a model on extreme inputs and at extreme settings; raise if one of them breaks it.

    Each case passes if the loss and every gradient are finite, or if the program refuses the
    input with a ValueError or FloatingPointError. Over all ordinary cases each parameter must get
    a gradient that is not zero at least once. NaN in the input must be refused or stay visible: a
    finite loss would hide it. (Inf may end in a tanh.) Nothing is changed: parameters, ``.grad``,
    buffers and random numbers are put back.

    Args:
        model: any module. None: the lab's NBVAE.
        loss: ``loss(model, *inputs)`` gives a scalar. Needed for every model but an NBVAE.
        inputs: the cases, by name. None: made from `example`.
        example: an ordinary input of the model, with what else it takes (only floating tensors
            in the first place are varied).
        sweep: values to which a parameter is set whole, one after the other, by its name. None:
            for an NBVAE the three heads whose exponential is taken; nothing for other models.
        large: fills one of the cases.
        small: fills another one.
        generators: that the model draws from, besides the global ones.

    Returns:
        The printed lines, all of them good.

    Raises:
        AssertionError: lists every line that is not.
        ValueError: no loss or no inputs for a model of your own.

    The guide's original is blind where (each shown in a test):
        "Not NaN" passes an infinite loss.
        No backward runs: NaN gradients and dead parameters pass.
        The model is freshly made; no extreme setting of its heads is ever reached.
        It tests one model, which it builds itself.

    Source: the guide, 4.5.
    """
    model = NBVAE(n_genes=100, latent_dim=16, n_tissues=2) if model is None else model
    loss = loss or _lab_loss(model)
    if isinstance(model, NBVAE):
        sweep = LAB_SWEEP if sweep is None else sweep
        example = example or _lab_example(model)
    if inputs is None:
        if not example:
            raise ValueError("inputs: expected cases by name, or an example of the model's input")
        inputs = _cases(tuple(example), large, small)
    trial = _Trial(model, loss, SameNoise(model, generators))
    lines = [trial.line(name, given) for name, given in inputs.items()]
    usual = next(iter(inputs.values()))
    lines += [
        trial.swept(name, value, usual)
        for name, values in (sweep or {}).items()
        for value in values
    ]
    lines += trial.dead()
    if example:
        lines += [
            trial.visible(str(bad), _poisoned(example, bad)) for bad in (torch.nan, torch.inf)
        ]
    result = printed(lines)
    assert result, "not stable:\n" + "\n".join(map(str, result.odd))
    print(f"{GOOD} all extreme inputs passed")
    return result


test_extreme_inputs.__test__ = False  # a tool with the guide's name, not a test to collect


def _lab_loss(model: nn.Module) -> Loss:
    if not isinstance(model, NBVAE):
        raise ValueError("loss: expected a function, loss(model, *inputs), for a model of your own")
    return lambda model, x, tissue: elbo_loss(x, tissue, model)[0]


def _lab_example(model: NBVAE) -> tuple[Tensor, Tensor]:
    draw = Generator().manual_seed(0)
    x = torch.poisson(torch.full((10, model.encoder.n_genes), 3.0), generator=draw)
    tissue = torch.eye(model.encoder.n_tissues)[torch.arange(10) % model.encoder.n_tissues]
    return x, tissue


def _cases(example: tuple, large: float, small: float) -> dict[str, tuple]:
    x, *rest = example
    if not x.is_floating_point():
        return {"the example": example}
    spike = x.clone()
    spike.view(-1)[0] = large
    first = {
        "the example": x,
        "zeros": torch.zeros_like(x),
        f"all {large:g}": torch.full_like(x, large),
        f"all {small:g}": torch.full_like(x, small),
        f"one entry {large:g}": spike,
        "one row": x[:1],
    }
    rows = {"one row": [r[:1] if isinstance(r, Tensor) and len(r) == len(x) else r for r in rest]}
    return {name: (value, *rows.get(name, rest)) for name, value in first.items()}


def _poisoned(example: Sequence, bad: float) -> tuple:
    x, *rest = example
    if not x.is_floating_point():
        return ()
    x = x.clone()
    x.view(-1)[0] = bad
    return (x, *rest)


class _Trial:
    """One model under test."""

    def __init__(self, model: nn.Module, loss: Loss, noise: SameNoise):
        self.model, self.loss, self.noise = model, loss, noise
        self.named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.alive: set[str] = set()

    def run(self, given: tuple) -> tuple[Tensor, dict[str, Tensor | None]]:
        with self.noise:
            self.noise.again()
            value = self.loss(self.model, *given)
            params = list(self.named.values())
            if not value.requires_grad:
                return value, dict.fromkeys(self.named)
            grads = torch.autograd.grad(value, params, allow_unused=True)
        return value.detach(), dict(zip(self.named, grads, strict=True))

    def line(self, name: str, given: tuple) -> Line:
        try:
            value, grads = self.run(given)
        except REFUSED as error:
            return Line(GOOD, name, f"refused: {error}")
        if not finite(value):
            return Line(BAD, name, f"loss is {value.item()}")
        bad = [n for n, g in grads.items() if g is not None and not finite(g)]
        if bad:
            return Line(BAD, name, f"loss {value.item():.4g}, gradient not finite: {_few(bad)}")
        self.alive |= {n for n, g in grads.items() if g is not None and g.count_nonzero()}
        return Line(GOOD, name, f"loss {value.item():.4g}, every gradient finite")

    def swept(self, name: str, value: float, given: tuple) -> Line:
        """The model with one parameter set whole; what lives there does not count as alive."""
        parameter, alive = self.named[name], set(self.alive)
        kept = deepcopy(parameter.detach())
        try:
            with torch.no_grad():
                parameter.fill_(value)
            return self.line(f"{name} = {value:g}", given)
        finally:
            with torch.no_grad():
                parameter.copy_(kept)
            self.alive = alive

    def dead(self) -> list[Line]:
        dead = [name for name in self.named if name not in self.alive]
        return [Line(BAD, "dead", f"zero gradient on every input: {_few(dead)}")] if dead else []

    def visible(self, name: str, given: tuple) -> Line:
        name = f"{name} in the input"
        if not given:
            return Line(GOOD, name, "not a floating input")
        try:
            value, _ = self.run(given)
        except REFUSED as error:
            return Line(GOOD, name, f"refused: {error}")
        if finite(value) and name.startswith("nan"):
            return Line(BAD, name, f"hidden: the loss is {value.item():.4g}")
        return Line(GOOD, name, f"not hidden: the loss is {value.item():.4g}")


def _few(names: Sequence[Any]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
