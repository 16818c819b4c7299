"""Is a gradient the slope of its loss? Compared with a finite difference along itself."""

from collections.abc import Callable, Sequence
from math import isfinite

import torch
from torch import Tensor

from labkit.guide.leaves import reals

STEPS = (1e-3, 1e-2, 1e-4, 1e-5, 1e-1)  # lengths of the step, as a share of the parameters' length
NEAR = 0.01  # a ratio as near to 1 as this needs no other step
NOISE = 100.0  # roundings of the loss that a difference must exceed to say anything


def slope_ratio(
    loss: Callable[[], Tensor], params: Sequence[Tensor], grads: Sequence[Tensor]
) -> float | None:
    """Finite difference of the loss along the gradient, divided by what the gradient predicts.

    Args:
        loss: computes the scalar; it must draw the same noise in every call.
        params: are moved and put back to the bit.
        grads: one for each.

    Returns:
        The ratio nearest to 1 over some lengths of step; None if every difference is below the
        rounding of the loss, or not finite. A correct gradient of a smooth loss gives 1 to some
        per cent. A path that is cut beside a living one gives something else, and so does a
        stop-gradient that is meant.
    """
    length = _length(grads)
    if not length or not isfinite(length):
        return None
    kept = [p.detach().clone() for p in params]
    size = max(_length(params), 1e-3)
    best = None
    for share in STEPS:
        ratio = _ratio(loss, params, grads, kept, share * size / length)
        if ratio is not None and (best is None or abs(ratio - 1) < abs(best - 1)):
            best = ratio
        if best is not None and abs(best - 1) <= NEAR:
            break
    return best


def _length(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([reals(t).norm() for t in tensors]).norm())


def _ratio(loss, params, grads, kept, h: float) -> float | None:
    predicted = 2 * h * _length(grads) ** 2
    try:
        ahead = _moved(loss, params, grads, kept, h)
        behind = _moved(loss, params, grads, kept, -h)
    finally:
        _moved(None, params, grads, kept, 0.0)
    difference = float(ahead.double() - behind.double())
    rounding = torch.finfo(ahead.dtype).eps * max(abs(float(ahead)), abs(float(behind)))
    if not isfinite(difference) or predicted < NOISE * rounding:
        return None
    return difference / predicted


def _moved(loss, params, grads, kept, h: float) -> Tensor | None:
    with torch.no_grad():
        for p, g, old in zip(params, grads, kept, strict=True):
            p.copy_(old + h * g if h else old)
    return loss().detach() if loss else None  # with a graph: some losses take gradients themselves
