"""Calls that leave no operator behind: detach, .data, numpy, requires_grad_, backward, ..."""

import inspect
import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree

from labkit.probes.backwards import Backwards
from labkit.probes.gradients import Gradients
from labkit.probes.measure import measure
from labkit.probes.notes import Note
from labkit.probes.record import Recorder
from labkit.probes.tape import Tape

_ADD_GROUP = inspect.unwrap(torch.optim.Optimizer.add_param_group).__code__


class Calls(Backwards):
    """Sees the user's calls by name and hands all but a few straight on."""

    def __init__(self, tape: Tape, recorder: Recorder, gradients: Gradients):
        super().__init__(tape, recorder, gradients)
        self.notes: list[Note] = []
        self.builders: dict[int, tuple] = {}  # id -> optimizer, its line, events and notes then
        self.emptied: set[int] = set()  # events by which a dropout left nothing
        self.spans: list[tuple[int, int, str]] = []  # calls that ran several operators

    def __torch_function__(self, func, types, args=(), kwargs=None):
        special = _SPECIAL.get(func)
        if special is None or torch._C._functorch.peek_interpreter_stack() is not None:
            begin, out = len(self.tape.events), func(*args, **(kwargs or {}))
            if (end := len(self.tape.events)) > begin + 1:
                self.spans.append((begin, end, getattr(func, "__name__", "")))
            return out
        return special(self, func, args, kwargs or {})

    # Each method below stands in for one of the calls named in _SPECIAL.

    def bypass(self, func, args, kwargs):
        self.recorder.bypass = "data" if func == _T.data.__get__ else "detach"
        try:
            return func(*args, **kwargs)
        finally:
            self.recorder.bypass = ""

    def escape(self, func, args, kwargs):
        """Values leave for numpy or Python."""
        out = func(*args, **kwargs)
        self._escaped(func.__name__.strip("_"), (args[0],), args[0].requires_grad)
        return out

    def convert(self, func, args, kwargs):
        """torch.tensor and its like read tensors inside a list without a word."""
        out = func(*args, **kwargs)
        inside = [x for x in pytree.tree_leaves(args) if isinstance(x, Tensor)]
        tape = self.tape
        if not inside:
            values = out.flatten().tolist() if 0 < out.numel() <= 64 else ()
            parents = [p for p in map(tape.echo, values) if p is not None]
            if not isinstance(args[0] if args else 0, int | float):
                parents = parents or tape.leaks()
            if not parents:
                return out
        else:
            parents = [tape.look(x, None).event for x in inside]
        event = self._event(func.__name__, parents)
        event.cut = any(x.requires_grad for x in inside)
        event.live = event.cut
        self._claim(out, event)
        return out

    def from_numpy(self, func, args, kwargs):
        out = func(*args, **kwargs)
        parents = self.tape.leaks()
        if parents:
            self._claim(out, self._event("from_numpy", parents))
        return out

    def switch(self, func, args, kwargs):
        """requires_grad_ or requires_grad = ..."""
        before = args[0].requires_grad
        out = func(*args, **kwargs)
        now = args[0].requires_grad
        if before != now:
            self._note(f"requires_grad_({now})", args[0], now)
        return out

    def set_grad(self, func, args, kwargs):
        self._settle()
        had = args[0].grad is not None
        out = func(*args, **kwargs)
        if had and args[0].grad is None:
            self._note("grad = None", args[0])
        return out

    def set_data(self, func, args, kwargs):
        out = func(*args, **kwargs)
        tape = self.tape
        if id(args[0]) in tape.known and isinstance(args[1], Tensor):
            event = self._event("data", [tape.look(args[1], None).event])
            event.live = args[1].requires_grad
            self._claim(args[0], event)
            event.mutates = (id(args[0]),)
        self._note("data =", args[0])
        return out

    def drop(self, func, args, kwargs):
        """A dropout is told apart from a product with zeros that the user wrote."""
        first = len(self.tape.events)
        out = func(*args, **kwargs)
        for event in self.tape.events[first:]:
            made = event.live and event.outputs and event.outputs[0].word == "zero"
            if made and any(stats.large > 0 for stats in event.inputs):
                self.emptied.add(event.index)
        return out

    def building(self, func, args, kwargs):
        """Optimizer.add_param_group asks every parameter whether it is a leaf."""
        frame = sys._getframe(2)
        for _ in range(3):
            if frame is not None and frame.f_code is _ADD_GROUP:
                optimizer = frame.f_locals["self"]
                if id(optimizer) not in self.builders:
                    marks = len(self.tape.events), len(self.notes)
                    self.builders[id(optimizer)] = (optimizer, self.tape.here(3), *marks)
                break
            frame = frame.f_back if frame is not None else None
        return func(*args, **kwargs)

    # -- notes ------------------------------------------------------------------------------

    def _note(self, what: str, tensor: Tensor, value: Any = None) -> None:
        tape = self.tape
        place = tape.here(4)
        self.notes.append(Note(what, id(tensor), len(tape.events), tape.step, place, value))

    def _event(self, name: str, parents: list[int]):
        event = self.tape.add("forward", "op", name, self.tape.here(4))
        event.parents = tuple(dict.fromkeys(parents))
        event.fed = tuple((p, s) for p in event.parents for s in self.tape.events[p].outputs[:1])
        event.inputs = tuple(s for p in event.parents for s in self.tape.events[p].outputs[:1])
        return event

    def _escaped(self, name: str, tensors, live: bool) -> None:
        found = [self.tape.look(x, None) for x in tensors]
        if not live:
            for known in found:
                self.tape.cut(known)
        event = self._event(name, [known.event for known in found])
        event.cut = event.live = live
        event.outputs = event.inputs
        self.tape.escapes.append(event.index)

    def _claim(self, tensor: Tensor, event) -> None:
        with torch._C._DisableTorchDispatch():
            stats = measure(tensor)
        event.outputs = (stats,)
        self.tape.claim(tensor, event.index, stats)


_T = torch.Tensor
_DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, torch.dropout)
_SPECIAL = {
    _T.detach: Calls.bypass,
    _T.detach_: Calls.bypass,
    _T.data.__get__: Calls.bypass,
    _T.data.__set__: Calls.set_data,
    _T.numpy: Calls.escape,
    _T.__array__: Calls.escape,
    _T.tolist: Calls.escape,
    torch.tensor: Calls.convert,
    torch.as_tensor: Calls.convert,
    torch.from_numpy: Calls.from_numpy,
    _T.requires_grad_: Calls.switch,
    _T.requires_grad.__set__: Calls.switch,
    _T.grad.__set__: Calls.set_grad,
    _T.backward: Calls.backward,
    torch.autograd.backward: Calls.backward,
    torch.autograd.grad: Calls.grad,
    _T.is_leaf.__get__: Calls.building,
    _T.grad_fn.__get__: Calls.hook,
    _T.register_hook: Calls.hook,
    _T.register_post_accumulate_grad_hook: Calls.hook,
    **dict.fromkeys(_DROPOUTS, Calls.drop),
}
