"""Nested values as tensors, numbers, strings, lists and dicts alone: no code in a file."""

import functools
import sys
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

KIND = "labkit kind"  # the key that marks a dict as the description of something else
PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device, torch.Size)


def encode(tree: Any) -> Any:
    """What ``torch.load(..., weights_only=True)`` can read.

    Args:
        tree: tensors, arrays, numbers, strings, sequences, dicts, dataclasses, named tuples and
            enums, nested. Anything else becomes a note of its type; see `missing`.
    """
    kind = type(tree)
    if kind in PLAIN:
        return tree
    if isinstance(tree, Tensor):  # a view would drag its whole storage along
        return tree.detach().as_subclass(torch.Tensor).clone()
    if isinstance(tree, np.ndarray | np.generic) and tree.dtype.kind in "biufc":
        return {KIND: "array", "values": torch.from_numpy(np.array(tree)), "is": _class(kind)}
    if kind is list or kind is tuple:
        return kind(map(encode, tree))
    if isinstance(tree, dict):
        return _encode_dict(tree)
    if isinstance(tree, Enum):
        return {KIND: "enum", "is": _class(kind), "value": tree.value}
    names = _fields(tree)
    if names is None:
        return {KIND: "missing", "is": _class(kind)}
    return {
        KIND: "made",
        "is": _class(kind),
        "fields": {n: encode(getattr(tree, n)) for n in names},
    }


def _encode_dict(tree: dict) -> dict:
    if KIND not in tree and all(type(key) in (str, int) for key in tree):
        return {key: encode(value) for key, value in tree.items()}
    return {KIND: "dict", "items": [[encode(k), encode(v)] for k, v in tree.items()]}


def decode(tree: Any, rooms: tuple[str, ...] | None = None) -> Any:
    """The value again.

    Args:
        tree: what `encode` made.
        rooms: packages whose classes may be made; None: all that the program has loaded. No
            class is imported, and no ``__init__`` runs.

    Raises:
        ValueError: a class is not loaded, or is neither dataclass, named tuple nor enum.
    """
    again = functools.partial(decode, rooms=rooms)
    if type(tree) in (list, tuple):
        return type(tree)(map(again, tree))
    if not isinstance(tree, dict):
        return tree
    if KIND not in tree:
        return {key: again(value) for key, value in tree.items()}
    if tree[KIND] == "dict":
        return {_hashable(again(key)): again(value) for key, value in tree["items"]}
    if tree[KIND] == "array":
        values = tree["values"].numpy()
        return values if tree["is"].endswith(":ndarray") else values[()]
    if tree[KIND] == "missing":
        raise ValueError(f"a {tree['is']} could not be kept")
    return _made(_find(tree["is"], rooms), tree, again)


def _made(kind: type, tree: dict, again) -> Any:
    if tree[KIND] == "enum" and issubclass(kind, Enum):
        return kind(tree["value"])
    values = {name: again(value) for name, value in tree["fields"].items()}
    if issubclass(kind, tuple):
        return tuple.__new__(kind, values.values())
    made = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def missing(tree: Any, path: str = "batch") -> list[str]:
    """Where an encoded tree has only a note: ``batch[0].graph is a networkx:Graph``."""
    if isinstance(tree, dict) and tree.get(KIND) == "missing":
        return [f"{path} is a {tree['is']}"]
    parts = tree.items() if isinstance(tree, dict) else ()
    parts = enumerate(tree) if isinstance(tree, list | tuple) else parts
    return [note for key, part in parts for note in missing(part, f"{path}[{key!r}]")]


def _fields(tree: Any) -> list[str] | None:
    if isinstance(tree, type):
        return None
    if is_dataclass(tree):
        return [field.name for field in fields(tree) if hasattr(tree, field.name)]
    return list(tree._fields) if isinstance(tree, tuple) and hasattr(tree, "_fields") else None


def _class(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _find(name: str, rooms: tuple[str, ...] | None) -> type:
    module, _, path = name.partition(":")
    allowed = rooms is None or module.startswith(rooms)
    found = sys.modules.get(module) if allowed else None
    for part in path.split("."):
        found = getattr(found, part, None)
    plain = isinstance(found, type) and (
        is_dataclass(found) or issubclass(found, Enum) or hasattr(found, "_fields")
    )
    if not plain:
        raise ValueError(f"{name}: expected a dataclass, named tuple or enum that is loaded")
    return found


def _hashable(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key
