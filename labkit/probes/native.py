"""A backward of C++ nodes alone: none of its operators needs to be seen one by one."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import _get_current_dispatch_mode, _pop_mode_temporarily


def unseen(recorder, roots: list[Tensor], args, kwargs) -> AbstractContextManager:
    """Takes the recorder off for one call of backward, if there is nothing for it to record.

    The hooks on the nodes see all that such a backward does, and each operator that a recorder
    lets pass costs as much as a small operator itself.

    Args:
        recorder: it stays on if Python may run inside (custom Functions, hooks, checkpoints),
            if the backward makes a graph of its own, or if another mode lies on top of it.
        roots: what the backward starts from.
        args: of the call, positional ones.
        kwargs: of the call, by name.
    """
    graph = len(args) > 3 or kwargs.get("create_graph")  # or something as rare, by its position
    if graph or recorder.gradients.hooked or _get_current_dispatch_mode() is not recorder:
        return nullcontext()
    known = recorder.gradients.nodes
    plain = all(_plain(node, known) for node in below(roots))
    return _pop_mode_temporarily() if plain else nullcontext()


def below(roots: list[Tensor]) -> Iterator:
    """Every autograd node from which the roots were made, each once."""
    todo = [root.grad_fn for root in roots if root.grad_fn is not None]
    seen = set(todo)
    while todo:
        yield (node := todo.pop())
        fresh = {after for after, _ in node.next_functions if after is not None} - seen
        seen |= fresh
        todo.extend(fresh)


def _plain(node, known) -> bool:
    if isinstance(node, BackwardCFunction):
        return False
    if node in known:  # made before the eyes of the trace, and nobody hung a hook on it since
        return True
    leaf = getattr(node, "variable", None)
    return leaf is not None and not (leaf._backward_hooks or leaf._post_accumulate_grad_hooks)
