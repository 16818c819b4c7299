"""How many bytes of tensors live at once, op by op: exact, and the same on every machine."""

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Counts the storages that are made inside a ``with`` block, until they are freed.

    On device "meta" a tensor has a shape and no numbers: a program of any size is counted in
    milliseconds, and no memory is used. What an op needs within itself is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.history: list[int] = []  # bytes after each op
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        given = {id(storage) for storage in _storages((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            if id(storage) not in given | self._known:  # a view has the storage of its base
                self._known.add(id(storage))
                self.now += storage.nbytes()
                weakref.finalize(storage, self._freed, id(storage), storage.nbytes())
        self.peak = max(self.peak, self.now)
        self.history.append(self.now)
        return out

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _storages(values: Any) -> list[Any]:
    return [t.untyped_storage() for t in tree_leaves(values) if isinstance(t, Tensor)]
