"""Does a function fit on the bench at all? It is called once beside the library's answer."""

from collections.abc import Callable
from copy import deepcopy
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

WRITE = "write the function first"
WIDER = (
    ". Another dtype moves the edge and does not remove it; it costs memory and surprises "
    "whatever comes next"
)
IN_PLACE = (
    "make a new tensor: whoever else holds the old one sees the change, and the backward pass may "
    "need what was there"
)


class NotYet(Exception):
    """The function cannot go on: a line that says what happened, and a hint."""

    def __init__(self, line: str, hint: str):
        super().__init__(line, hint)
        self.line, self.hint = line, hint


def fits(failure: ModuleType, mine: Callable) -> None:
    """Return if the function can be put on the bench.

    Raises:
        NotYet: it is no function, not written yet, cannot be called as the library's answer is,
            returns another kind of thing, or edits its input.
    """
    if not callable(mine):
        raise NotYet(f"expected a function; got {mine!r}", "hand in the function, not its result")
    if getattr(getattr(mine, "__code__", None), "co_code", b"") == _stub.__code__.co_code:
        raise NotYet("", WRITE)  # where a form returns nothing, only its code tells
    calls = _calls(failure)
    if not calls:  # a failure that asks nothing of the function in its broken case
        return
    values = calls[0]
    yours_in, theirs_in = _copied(values), _copied(values)
    call = f"{failure.FORM_KNOB}({', '.join(_kind(value) for value in values)})"
    theirs = answer(failure)(*theirs_in)
    yours = _called(mine, yours_in, getattr(failure, "STOPPED", f"it is called as {call}"))
    if yours is ... or (yours is None and theirs is not None):
        raise NotYet("", WRITE)
    if _kind(yours) != _kind(theirs):
        both = isinstance(yours, Tensor) and isinstance(theirs, Tensor)
        wider = WIDER if both and yours.shape == theirs.shape else ""
        raise NotYet(f"it returns {_kind(yours)}", f"{call} returns {_kind(theirs)}{wider}")
    if not _same(yours_in, values) and _same(theirs_in, values):
        raise NotYet("it edits its input in place", IN_PLACE)


def _stub() -> None: ...


def answer(failure: ModuleType) -> Callable:
    """The library's own answer: the form of the repaired case."""
    return failure.FORMS[getattr(failure.CASES["repaired"], failure.FORM_KNOB)]


def told(error: BaseException) -> str:
    """An exception in one line."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _called(mine: Callable, values: list[Any], hint: str) -> Any:
    try:
        out = mine(*values)
    except NotImplementedError:
        raise NotYet("", WRITE) from None
    except (Exception, SystemExit) as error:
        raise NotYet(f"it stopped with {told(error)}", hint) from error
    return ... if out is NotImplemented else out


def _calls(failure: ModuleType) -> list[list[Any]]:
    """What the broken case hands to the function in its first call, cut off from its graph."""
    calls: list[list[Any]] = []

    def listen(*values: Any) -> Any:
        if not calls:  # copied now: what follows may change a model or an optimizer
            calls.append(_copied([v.detach() if isinstance(v, Tensor) else v for v in values]))
        return answer(failure)(*values)

    failure.run(failure.CASES["broken"], repair=listen)
    return calls


def _copied(values: list[Any]) -> list[Any]:
    """Copies that share nothing; parameters keep their gradients, which deepcopy drops."""
    memo: dict[int, Any] = {}
    copies = deepcopy(values, memo)
    for old in memo.get(id(memo), ()):  # deepcopy keeps here what it copied
        if isinstance(old, nn.Parameter) and old.grad is not None:
            memo[id(old)].grad = old.grad.clone()
    return copies


def _same(some: list[Any], others: list[Any]) -> bool:
    pairs = [(a, b) for a, b in zip(some, others, strict=True) if isinstance(b, Tensor)]
    return all(a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)


def _kind(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
