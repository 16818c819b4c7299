"""Calls that run a backward pass, and the losses from which they start."""

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from labkit.probes.gradients import Gradients
from labkit.probes.native import unseen
from labkit.probes.notes import Root, total
from labkit.probes.record import Recorder
from labkit.probes.tape import Tape


class Backwards(TorchFunctionMode):
    """Notes what a backward starts from, runs it, and looks at what it left."""

    def __init__(self, tape: Tape, recorder: Recorder, gradients: Gradients):
        super().__init__()
        self.tape, self.recorder, self.gradients = tape, recorder, gradients
        self.roots: list[Root] = []
        self.backwards = 0

    def backward(self, func, args, kwargs):
        """Tensor.backward and torch.autograd.backward."""
        roots = self._watch(args[0] if args else kwargs.get("tensors", ()))
        for tensor in roots:
            self._root(tensor)
        self.backwards += 1
        try:
            return self._run(roots, func, args, kwargs)
        finally:
            self._settle()

    def grad(self, func, args, kwargs):
        """torch.autograd.grad: its results are gradients too."""
        outputs = self._watch(args[0] if args else kwargs["outputs"])
        inputs = args[1] if len(args) > 1 else kwargs["inputs"]
        inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        if any(x.is_leaf and x.requires_grad for x in inputs):
            for tensor in outputs:
                self._root(tensor)
        feeders = self.gradients.feeders
        out = self._run(outputs, func, args, kwargs)
        self.gradients.collect(inputs, out, feeders, outputs)
        return out

    def hook(self, func, args, kwargs):
        """Python code may come to run inside a backward of this step."""
        self.gradients.hooked = True
        return func(*args, **kwargs)

    def returned(self, tensor: Tensor) -> None:
        """What a step returned counts as its loss if no backward ran in it."""
        if (maker := self._root(tensor)) is not None:
            maker.cut = maker.live and maker.graph and not tensor.requires_grad

    def _run(self, roots: list[Tensor], func, args, kwargs):
        self.gradients.running += 1
        try:
            with unseen(self.recorder, roots, args, kwargs):
                return func(*args, **kwargs)
        finally:
            self.gradients.running -= 1

    def _root(self, tensor: Tensor):
        """Note a loss; returns the event that made it, if one is known."""
        tape, seen = self.tape, self.tape.known.get(id(tensor))
        if seen is None:
            return None
        self.roots.append(Root(tape.step, seen.event, total(tensor), seen.stats, len(tape.events)))
        return tape.events[seen.event]

    def _watch(self, roots) -> list[Tensor]:
        roots = (roots,) if isinstance(roots, Tensor) else roots
        for tensor in (roots := [root for root in roots if isinstance(root, Tensor)]):
            with torch._C._DisableTorchDispatch():
                if tensor.grad_fn is not None and not self.tape.knows(tensor):
                    self.gradients.adopt(tensor)
                known = self.tape.look(tensor, None)
            if tensor.requires_grad:
                self.gradients.watch(tensor, self.tape.events[known.event])
            else:
                self.tape.cut(known)
        return roots

    def _settle(self) -> None:
        if self.gradients.unsettled:
            with torch._C._DisableTorchDispatch():
                self.gradients.settle()
