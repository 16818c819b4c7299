"""Bad input: what the guide's tests and its isnan of the input let through (guide, 4.5 and 5)."""

from collections.abc import Callable

import torch
from torch import Tensor

from labkit.claims.entry import Ruling, claim, protection, truth
from labkit.claims.subjects import (
    SoftplusDecoder,
    cells,
    error_of,
    force,
    rooted,
    spoilt_gradients,
    vae,
)
from labkit.models.guards import GUIDE, Guards
from labkit.models.vae import NBVAE, elbo_loss

INF = float("inf")
Loss = Callable[[NBVAE, Tensor], Tensor]


def elbo(model: NBVAE, x: Tensor, guards: Guards = GUIDE) -> Tensor:
    """The guide's loss of some counts."""
    draw = torch.Generator().manual_seed(0)
    tissue = cells().tissue[: len(x)]
    return elbo_loss(x, tissue, model, guards=guards, form="guide", generator=draw)[0]


def not_nan(loss: Tensor, model: NBVAE) -> bool:
    """The guide's test of one input: the loss is not NaN."""
    return not bool(loss.isnan())


def strict(loss: Tensor, model: NBVAE) -> bool:
    """Loss finite, backward run, every gradient finite, and that of fc_logvar not 0."""
    if not loss.isfinite():
        return False
    loss.backward()
    return not spoilt_gradients(model) and bool(model.encoder.fc_logvar.bias.grad.any())


def broken_models() -> dict[str, tuple[NBVAE, Loss]]:
    """Three models that no one should train."""
    unguarded, plain, dead = (vae(SoftplusDecoder) for _ in range(3))
    force(unguarded.encoder.fc_logvar, 89.5)
    force(dead.encoder.fc_logvar, 15.0)

    def with_root(model: NBVAE, x: Tensor) -> Tensor:
        z, _ = model.encoder(x, cells().tissue[: len(x)])
        return elbo(model, x) + rooted(z, z + 1.0)

    return {
        "an infinite loss": (unguarded, lambda m, x: elbo(m, x, Guards())),
        "NaN gradients": (plain, with_root),
        "a dead logvar": (dead, elbo),
    }


@claim(
    "G81",
    chinese="测试极端输入下的稳定性",
    english="The test shows that a model is stable under extreme inputs.",
    where="4.5 test_extreme_inputs",
    verdict="false",
)
def the_test_finds_unstable_models(passes=not_nan) -> Ruling:
    """The guide's three inputs on three broken models."""
    counts = cells(10).counts
    inputs = [torch.full_like(counts, value) for value in (0.0, 1e6, 1e-6)]
    sound = vae(SoftplusDecoder)
    healthy = all(not_nan(elbo(sound, x), sound) for x in inputs)
    passed = [
        what
        for what, (model, loss) in broken_models().items()
        if all(passes(loss(model, x), model) for x in inputs)
    ]
    return truth(healthy and not passed), (
        f"It passes {len(passed)} of 3 broken models: with {', '.join(passed) or 'none'}; it asks "
        "for "
        "'not NaN' of the forward loss alone."
    )


def isnan(x: Tensor) -> None:
    """The guide's check of the input."""
    if torch.isnan(x).any():
        raise ValueError("NaN in the input")


@claim(
    "G82",
    chinese="检查输入数据是否包含NaN: torch.isnan(x).any()",
    english="torch.isnan(x).any() checks the input.",
    where="quick reference, before training",
    verdict="incomplete guard",
)
def isnan_checks_the_input(check: Callable[[Tensor], object] = isnan) -> Ruling:
    """One bad entry each; and what such an entry does to the guarded model."""

    def seen(value: float) -> bool:
        return error_of(lambda: check(_with(value))) != ""

    nan, missed = seen(torch.nan), [v for v in (INF, -3.0, 0.37) if not seen(v)]
    model = vae(SoftplusDecoder)
    loss = elbo(model, _with(-3.0))
    loss.backward()
    half = float(torch.tensor(70000.0).half())
    return protection(stops=nan, leaks=bool(missed)), (
        f"It tells NaN; it lets {len(missed)} others pass ({', '.join(f'{v:g}' for v in missed)}); "
        f"one count of -3 makes the guarded model's loss {float(loss.detach()):g} and "
        f"{len(spoilt_gradients(model))} of 12 gradients bad; a count of 70000 is {half:g} in "
        "float16."
    )


def _with(value: float) -> Tensor:
    x = cells().counts.clone()
    x[0, 0] = value
    return x


@claim(
    "D10",
    english="A bad batch that is skipped leaves no trace.",
    verdict="false",
)
def a_skipped_batch_leaves_no_trace(layer: str = "BatchNorm1d", bad: float = 1e10) -> Ruling:
    """A layer sees one outlier without a backward, then clean batches; its answer in eval mode."""
    kept = {after: _answer(layer, after, bad) for after in (10, 500)}
    never, clean = _answer(layer, 500, INF), _answer(layer, 500, 0.0)
    near = all(abs(v - clean) < 0.01 for v in (*kept.values(), never))
    return truth(near), (
        f"In eval mode {layer} answers {clean:.2f} to x = 1; after one skipped batch with an entry "
        f"of {bad:.0e} it answers {kept[10]:.1g} 10 clean batches later and {kept[500]:.2f} after "
        f"500; after one with Inf {never:g} for ever."
    )


def _answer(layer: str, batches: int, bad: float) -> float:
    norm = getattr(torch.nn, layer)(1) if layer == "BatchNorm1d" else torch.nn.Identity()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():  # a skipped batch has no backward, but it has a forward
        outlier = torch.randn(32, 1, generator=draw)
        outlier[0] = bad or outlier[0]
        norm(outlier)
        for _ in range(batches):
            norm(torch.randn(32, 1, generator=draw))
        return float(norm.eval()(torch.ones(1, 1)))
