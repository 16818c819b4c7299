"""A training step that happens whole or not at all."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite, nan

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Step:
    """What one step did; `reason` says why it was refused."""

    accepted: bool
    reason: str
    loss: float
    norm: float


def safe_step(
    loss: Tensor | Callable[[], Tensor],
    optimizer: torch.optim.Optimizer,
    params: Iterable[nn.Parameter] | Iterable[tuple[str, nn.Parameter]],
    max_norm: float = 100.0,
    buffers: Iterable[Tensor] = (),
) -> Step:
    """Loss finite, backward, every gradient finite, float64 norm, clip, step; or nothing.

    Args:
        loss: a scalar, or a function that computes it (then `buffers` can be put back).
        params: parameters, or pairs of name and parameter, so that a refusal can name them.
        max_norm: a longer gradient is scaled down to this length.
        buffers: what the forward pass may change, such as running means.

    Returns:
        The step. If refused, parameters, optimizer state and `buffers` have the bits that they
        had, and no gradient is left. Random numbers that the forward pass drew stay drawn, so
        that the next try sees other noise.
    """
    buffers = list(buffers)
    before = [buffer.clone() for buffer in buffers]
    optimizer.zero_grad(set_to_none=True)
    value, reason = evaluated(loss)
    size, norm, grads = nan if value is None else float(value.detach()), nan, {}
    reason = reason or ("" if isfinite(size) else f"loss is {size}")
    if not reason:
        value.backward()
        named = (p if isinstance(p, tuple) else (str(i), p) for i, p in enumerate(params))
        grads = {name: p.grad for name, p in named if p.grad is not None}
        norm, reason = gradient_norm(grads)
    if reason:
        optimizer.zero_grad(set_to_none=True)
        for buffer, old in zip(buffers, before, strict=True):
            buffer.copy_(old)
        return Step(False, reason, size, norm)
    if norm > max_norm:
        torch._foreach_mul_(list(grads.values()), max_norm / norm)
    optimizer.step()
    return Step(True, "", size, norm)


def evaluated(loss: Tensor | Callable[[], Tensor]) -> tuple[Tensor | None, str]:
    """The loss; or none, and what a guard in the mode `refuse` said."""
    try:
        return (loss() if callable(loss) else loss), ""
    except FloatingPointError as refusal:
        return None, str(refusal)


def gradient_norm(grads: dict[str, Tensor]) -> tuple[float, str]:
    """Length of all gradients together, summed in float64, and what is wrong with it, if any."""
    if not grads:
        return nan, "no parameter has a gradient"
    lengths = [torch.linalg.vector_norm(g, dtype=torch.float64) for g in grads.values()]
    norm = float(torch.stack(lengths).norm())
    if isfinite(norm):
        return norm, ""
    bad = [name for name, g in grads.items() if not g.isfinite().all()]
    return norm, f"gradient not finite: {', '.join(bad)}" if bad else "gradient norm overflows"
