"""Every tensor inside tuples, lists, dicts and dataclasses, with the path that leads to it."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from labkit.probes.measure import measure


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Pairs of path and tensor: ``("[1]", t)``, ``("['mu'][0]", t)``, ``(".logits", t)``.

    Breaks when: a tensor lies inside an object of another kind; it is not seen.
    """
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from leaves(part, f"{path}[{key!r}]")
    elif isinstance(value, list | tuple):
        for place, part in enumerate(value):
            yield from leaves(part, f"{path}[{place}]")
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from leaves(getattr(value, field.name), f"{path}.{field.name}")


def finite(tensor: Tensor) -> bool:
    """No NaN and no infinity; whole numbers are always finite."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    if tensor.layout is not torch.strided:
        return not measure(tensor, counted=0).bad
    return bool(tensor.detach().isfinite().all())


def reals(tensor: Tensor) -> Tensor:
    """The entries as float64, dense and without a graph; a complex one counts as two."""
    tensor = tensor.detach()
    tensor = tensor if tensor.layout is torch.strided else tensor.to_dense()
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).double()
