"""Every operator that runs, written on the tape: forward, optimizer and Python in backward."""

import sys

import torch
from torch import Tensor
from torch.autograd.graph import _engine_run_backward
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from labkit.probes.frames import applying, locate
from labkit.probes.gradients import Gradients
from labkit.probes.measure import COUNTED, flipped, glance, measure, respan, shifted
from labkit.probes.tape import Tape
from labkit.probes.tools import tool_of

_SHIFTS = {"neg", "add", "sub", "rsub", "mul", "div"}  # with a number, they keep the order
_RISING = {"exp", "log", "log1p", "sqrt", "relu", "softplus", "sigmoid", "tanh"}  # so do these
_FORETOLD = _SHIFTS | _RISING
_saved_hooks = torch._C._autograd._top_saved_tensors_default_hooks
_running_node = torch._C._current_autograd_node
_ENGINE = _engine_run_backward.__code__


class Recorder(TorchDispatchMode):
    """Writes operators on a tape. C++ nodes of the backward pass are left to their hooks."""

    supports_higher_order_operators = True

    def __init__(self, tape: Tape, gradients: Gradients):
        super().__init__()
        self.tape = tape
        self.gradients = gradients
        self.shadow = None  # a Shadow, where the trace carries float64 beside
        self.bypass = ""  # a user's detach, .data, ... that runs

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the wrapper would import torch._dynamo, which takes a second

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        frame = sys._getframe(1)
        if frame.f_code is _ENGINE and not torch.is_grad_enabled():
            return func(*args, **kwargs)
        tool = tool_of(func)
        if tool is None or tool.quiet:
            return func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            return self.record(tool, func, args, kwargs, frame)

    def record(self, tool, func, args, kwargs, frame):
        tape, graph = self.tape, torch.is_grad_enabled()
        if self.gradients.unsettled and _running_node() is None:
            self.gradients.settle()
        if self.gradients.running and _running_node() is None:
            return func(*args, **kwargs)  # the ones from which a backward starts
        if _saved_hooks(True) is not None:
            self.gradients.hooked = True
        if tool.name == "detach" and not self.bypass and isinstance(args[0], Tensor):
            return self._alias(func, args, kwargs)
        if tool.name == "lift_fresh" and not tape.knows(args[0]):
            return self._lifted(func, args[0], frame)
        inputs, fed, scalars, live = [], [], [], False
        for thing in (*args, *kwargs.values()) if kwargs else args:
            if isinstance(thing, Tensor):
                live |= self._read(thing, frame, inputs, fed)
            elif isinstance(thing, list | tuple):
                for item in thing:
                    if isinstance(item, Tensor):
                        live |= self._read(item, frame, inputs, fed)
            elif isinstance(thing, float | int) and not isinstance(thing, bool):
                scalars.append(thing)
        call = self.shadow.before(args, kwargs) if self.shadow is not None else None
        out = func(*args, **kwargs)
        place = tape.stepping or locate(frame, tape.last_frame)
        event = tape.add(self._phase(frame, graph), "op", tool.name, place)
        event.tool, event.graph, event.live = tool, graph, live and not tool.shaped
        event.bypass = self.bypass
        if event.live and not graph and event.phase == "forward":
            event.applied = applying(frame, tape.last_frame)
        if frame.f_code is _ENGINE:
            event.phase, event.node = "backward", _running_node().name()
        if event.phase == "backward":
            self.gradients.python.append((_running_node(), event.index))
        if scalars:
            self._scalars(event, scalars, fed)
        event.inputs, event.fed = tuple(inputs), tuple(fed)
        event.parents = tuple(dict.fromkeys(parent for parent, _ in fed))
        if call is not None and event.phase == "forward":
            event.error = self.shadow.after(tool, func, call, out)
        elif call is not None:
            targets = (args[position] for position, _ in tool.writes if position < len(args))
            self.shadow.take_over(pytree.tree_leaves(list(targets)))
        if tool.writes:
            self._written(event, tool, args, kwargs)
        self._made(event, tool, out, self._foretold(event, tool, func, args, kwargs))
        return out

    def _lifted(self, func, tensor: Tensor, frame):
        """A tensor made from numbers; after a leak to numpy they may be what leaked."""
        tape, leaks = self.tape, self.tape.leaks()
        out = func(tensor)
        if not leaks:
            tape.source(out, frame, kind="constant")
            return out
        event = tape.add("forward", "op", "from_numpy", locate(frame, tape.last_frame))
        event.parents = tuple(leaks)
        event.fed = tuple((leak, s) for leak in leaks for s in tape.events[leak].outputs[:1])
        event.inputs = tuple(stats for _, stats in event.fed)
        event.outputs = (measure(out),)
        tape.claim(out, event.index, event.outputs[0])
        return out

    def _alias(self, func, args, kwargs):
        """A detach of torch's own (saving a result, making a Parameter): no step of the user's."""
        tape, (tensor, *_) = self.tape, args
        out = func(*args, **kwargs)
        known = tape.known.get(id(tensor))
        if known is not None and known.key == tape.key(out):
            tape.claim(out, known.event, known.stats, known.slot)
        return out

    def _phase(self, frame, graph: bool) -> str:
        if self.gradients.running and _running_node() is not None:
            return "backward"
        return "optimizer" if self.tape.optimizing and not graph else "forward"

    def _read(self, tensor: Tensor, frame, inputs: list, fed: list) -> bool:
        tape = self.tape
        known = tape.look(tensor, frame)
        inputs.append(known.stats)
        fed.append((known.event, known.stats))
        memory = known.memory
        if memory.writer > known.event:
            fed.append((memory.writer, known.stats))
            if known.stats.bad and known.event < memory.spoiler < memory.writer:
                fed.append((memory.spoiler, known.stats))  # another part was written later
        if not tensor.requires_grad:
            tape.cut(known)
            return False
        self.gradients.watch(tensor, tape.events[known.event])
        return True

    def _scalars(self, event, scalars: list, fed: list) -> None:
        tape = self.tape
        event.scalars = tuple(scalars)
        for value in scalars if tape.echoes else ():
            parent = tape.echo(value)
            if parent is not None:
                fed.append((parent, tape.events[parent].inputs[0]))

    def _written(self, event, tool, args, kwargs) -> None:
        tape, keys = self.tape, []
        for position, name in tool.writes:
            target = args[position] if position < len(args) else kwargs.get(name)
            for slot, tensor in enumerate(
                target if isinstance(target, list | tuple) else (target,)
            ):
                if isinstance(tensor, Tensor):
                    brief = event.phase == "optimizer" and id(tensor) not in tape.leaves
                    counted = COUNTED if event.phase == "forward" else 0
                    stats = glance(tensor) if brief else measure(tensor, counted)
                    event.outputs = (*event.outputs, stats)
                    self._behind(tensor, event)
                    tape.claim(tensor, event.index, stats, slot)
                    memory = tape.known[id(tensor)].memory
                    memory.writer = event.index
                    if stats.bad:
                        memory.spoiler = event.index
                    keys.append(id(tensor))
                    if memory.leaf not in (0, id(tensor)):  # by .data, .detach() or a view
                        keys.append(memory.leaf)
        event.mutates = tuple(keys)

    def _behind(self, tensor: Tensor, event) -> None:
        """A write through ``.data`` that autograd does not hear of."""
        known = self.tape.known.get(id(tensor))
        if known is not None and self.tape.events[known.event].bypass == "data":
            self.tape.behind[known.key] = event.index

    def _foretold(self, event, tool, func, args, kwargs):
        """The stats of a result that need not be looked at: ``-x``, ``x + 1``, ``log(x)``."""
        if tool.name not in _FORETOLD or len(event.inputs) != 1 or event.phase == "optimizer":
            return None
        if kwargs or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
            return None
        known = event.inputs[0]
        return flipped(known) if tool.name == "neg" else shifted(known, func, args)

    def _made(self, event, tool, out, foretold) -> None:
        slot = 0
        for thing in out if isinstance(out, list | tuple) else (out,):
            if isinstance(thing, Tensor):
                if id(thing) not in event.mutates:
                    self._output(event, tool, thing, slot, foretold)
                slot += 1
            elif isinstance(thing, list | tuple):
                for item in thing:
                    if isinstance(item, Tensor):
                        self._output(event, tool, item, slot)
                        slot += 1
        if tool.read:
            self._let_out(event, out)

    def _output(self, event, tool, tensor: Tensor, slot: int, foretold=None) -> None:
        tape = self.tape
        if tool.moved and event.inputs and event.inputs[0].size == tensor.numel():
            stats = respan(event.inputs[0], tuple(tensor.shape))
        elif foretold is not None:
            stats = foretold
        elif tool.unset:
            stats = measure(tensor[:0] if tensor.dim() else tensor.new_zeros(()))
            stats = type(stats)(tuple(tensor.shape), stats.dtype, tensor.numel(), counted=False)
        else:
            stats = glance(tensor) if event.phase == "optimizer" else measure(tensor)
        event.outputs = (*event.outputs, stats)
        tape.claim(tensor, event.index, stats, slot)
        if tool.unset:
            tape.known[id(tensor)].stamp = -2  # look at the values when somebody reads them

    def _let_out(self, event, value) -> None:
        event.value = value
        event.cut = event.live
        self.tape.let_out(value, event.index)
        self.tape.escapes.append(event.index)
