"""The check of every step: a sum cannot miss a NaN or an infinity."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_ORDINARY = {torch.float32, torch.float64, torch.bfloat16, torch.float16}


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Are all entries finite? Looks at one sum per tensor, and closer only where that is not.

    NaN and infinities survive every sum, so nothing is missed. A sum can also overflow from
    finite entries; therefore a bad sum is no verdict, and every tensor is then looked at exactly.

    Args:
        tensors: of any shape, dtype, layout and device; integers are finite.
    """
    values = [_values(tensor) for tensor in tensors]
    return math.isfinite(_total(values)) or all(bool(v.isfinite().all()) for v in values)


def _total(values: list[Tensor]) -> float:
    total, away = 0.0, []
    for value in values:
        if value.is_cpu:
            # Added up in float64: no overflow on the way.
            total += value.item() if value.dim() == 0 else value.sum().item()
        else:
            away.append(value.sum().float())
    if away:  # one transfer for all of them
        total += torch.stack([value.to(away[0].device) for value in away]).sum().item()
    return total


def _values(tensor: Tensor) -> Tensor:
    if type(tensor) is Tensor and tensor.dtype in _ORDINARY and tensor.layout is torch.strided:
        return tensor
    tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        tensor = (
            tensor.coalesce().values() if tensor.layout is torch.sparse_coo else tensor.values()
        )
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor


def word(tensor: Tensor) -> str:
    """``nan``, ``inf`` or ``ok``, exactly."""
    values = _values(tensor)
    if values.isnan().any():
        return "nan"
    return "ok" if values.isfinite().all() else "inf"


def bad_names(tensors: Mapping[str, Tensor | None]) -> list[str]:
    """What is not finite, each with its word: ``fc.weight (nan)``."""
    words = {name: word(tensor) for name, tensor in tensors.items() if tensor is not None}
    return [f"{name} ({word})" for name, word in words.items() if word != "ok"]


def listed(names: list[str], most: int = 3) -> str:
    """A few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
