"""More places that remember a bad step: Adam for long, a run that skips, a scale, a sum."""

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import ConstantLR

from labkit.failures._bad_batch import CELLS, batch, loss, prepared, train
from labkit.models.vae import NBVAE
from labkit.training.train import Run

WATCHED = "encoder.fc_mu.weight"


def strides(form, power: float = 10.0, steps: int = 60) -> list[float]:
    """A bad batch is undone, and training goes on: log10 of the length of every step."""
    model, optimizer = prepared("Adam")
    train(model, optimizer, 0)
    restore = form(model, optimizer)
    train(model, optimizer, 1, power)
    restore()
    weight, lengths = model.get_parameter(WATCHED), []
    for number in range(steps):
        before = weight.detach().clone()
        train(model, optimizer, number)
        lengths.append(math.log10(float((weight.detach() - before).norm())))
    return lengths


def skipping(steps: int = 40, bad: int = 5) -> dict[str, tuple[int, int, bool]]:
    """Finite loss, NaN gradient in one step: updates, skipped steps, are the weights finite?"""
    model, optimizer = _new_model()
    made = 0
    for number in range(steps):
        optimizer.zero_grad()
        value = loss(model, batch(number, torch.float32), number)
        if not value.isfinite():
            continue
        value.backward()
        if number == bad:
            model.encoder.fc_mu.bias.grad[0] = math.nan
        optimizer.step()
        made += 1
    plain = (made, steps - made, _finite(model))
    model, optimizer = _new_model()
    run = Run(model, optimizer, ConstantLR(optimizer, 1.0), torch.Generator())
    for number in range(steps):
        run.step(lambda number=number: _spoilt_loss(model, number, number == bad))
    kept = sum(value is not None for value in run.losses)
    return {"skip": plain, "labkit.training.Run": (kept, run.skipped, _finite(model))}


def scaler(bad: int = 170) -> tuple[list[float], float]:
    """Infinite gradients, one after the other, then a good one.

    Returns:
        The scale after 0, 10, 100 and `bad` steps; the weight, 1 until then, after the good step.
    """
    weight = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    guard, scales = torch.amp.GradScaler("cpu", init_scale=65536.0), []
    for number in range(bad + 1):
        if number in (0, 10, 100, bad):
            scales.append(guard.get_scale() if number else 65536.0)
        optimizer.zero_grad()
        factor = math.inf if number < bad else 1.0
        guard.scale(weight * factor).backward()
        guard.step(optimizer)
        guard.update()
    return scales, float(weight.detach())


def accumulated() -> dict[str, str]:
    """Four micro-batches, one of them spoilt: what is left of their sum."""
    added, checked, count = _sums()
    return {"added up": _told(added, 4), "checked before they are added": _told(checked, count)}


def _told(sums: dict[str, torch.Tensor], count: int) -> str:
    finite = sum(bool(g.isfinite().all()) for g in sums.values())
    return f"{finite} of {len(sums)} gradients finite, from {count} of 4"


def _sums():
    model, _ = prepared("Adam")
    named = dict(model.named_parameters())
    added = {name: torch.zeros_like(p) for name, p in named.items()}
    checked, count = {name: torch.zeros_like(p) for name, p in named.items()}, 0
    for number in range(4):
        cells = batch(number, torch.float32, 40.0 if number == 2 else None)[: CELLS // 4]
        grads = torch.autograd.grad(loss(model.eval(), cells, number), list(named.values()))
        for total, grad in zip(added.values(), grads, strict=True):
            total += grad
        if all(grad.isfinite().all() for grad in grads):
            count += 1
            for total, grad in zip(checked.values(), grads, strict=True):
                total += grad
    return added, checked, count


def _new_model() -> tuple[NBVAE, torch.optim.Optimizer]:
    model, _ = prepared("Adam")
    fresh = NBVAE.for_cells(batch(0, torch.float32), seed=1)
    model.encoder, model.decoder = fresh.encoder, fresh.decoder
    return model, torch.optim.Adam(model.parameters(), lr=5e-3)


def _spoilt_loss(model: NBVAE, number: int, bad: bool) -> torch.Tensor:
    value = loss(model, batch(number, torch.float32), number)
    if bad:
        value.register_hook(lambda grad: grad * math.nan)
    return value


def _finite(model: nn.Module) -> bool:
    return all(bool(p.isfinite().all()) for p in model.parameters())
