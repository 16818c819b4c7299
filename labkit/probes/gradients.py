"""The backward pass: what enters and leaves every autograd node, and what each leaf receives."""

import weakref
from functools import partial

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from labkit.probes.arrival import Arrival
from labkit.probes.events import Event
from labkit.probes.frames import NOWHERE, Place
from labkit.probes.measure import flipped, measure, respan
from labkit.probes.native import below
from labkit.probes.stats import Stats
from labkit.probes.tape import Tape


def _fed(event: Event, feeders) -> None:
    """Note who sent a node its gradients, and what each of them sent."""
    event.parents = tuple(dict.fromkeys(parent for parent, _ in feeders))
    event.fed = tuple(feeders)


class Gradients:
    """Hooks on autograd nodes, one each, taken off again by `close`."""

    def __init__(self, tape: Tape):
        self.tape = tape
        self.nodes: dict = {}  # node -> forward event
        self.handles: list = []
        self.feeders: dict = {}  # node -> events that sent it a gradient
        self.seen: dict[int, tuple] = {}  # gradients measured in this backward
        self.held: dict[tuple, Stats] = {}  # the same by storage: what views and leaves share
        self.storages: list = []  # weak handles: these addresses stay theirs
        self.unsettled = False
        self.running = 0  # backward calls under way
        self.hooked = False  # Python code may run inside the backward of this step
        self.python: list[tuple] = []  # node, event: operators run by Python inside a node
        self.wrong: list[tuple[int, int]] = []  # who wrote behind autograd, the node that suffers
        self.arrivals: list[Arrival] = []
        self.refused: list[tuple] = []  # event, Function: a backward that gave None for an input
        self.derived: list[tuple] = []  # autograd.grad: its output, its result, with a graph?

    def watch(self, tensor: Tensor, maker: Event) -> None:
        """Hook the node that made this tensor, once."""
        node = tensor.grad_fn
        if node is None or node in self.nodes:
            return
        self.nodes[node] = maker.index
        maker.node = maker.node or node.name()
        if maker.live or maker.phase == "forward":
            maker.cut = False
            if not maker.graph:
                self._inside(maker, node)
        self.handles.append(node.register_hook(partial(self.ran, maker.index)))

    def adopt(self, root: Tensor) -> None:
        """Hook the nodes of a graph that was made before the trace; nobody knows their lines."""
        self.hooked = True
        for node in below([root]):
            if node not in self.nodes and not hasattr(node, "variable"):
                maker = self.tape.add("source", "graph", node.name(), NOWHERE)
                self.nodes[node] = maker.index
                self.handles.append(node.register_hook(partial(self.ran, maker.index)))

    def _inside(self, event: Event, node) -> None:
        """Ops of a custom Function run without a graph of their own: nothing is cut there.

        But what they read of leaves that are no inputs of the Function.
        """
        todo = [event]
        entered = {id(getattr(after, "variable", None)) for after, _ in node.next_functions}
        while todo:
            event = todo.pop()
            parents = [self.tape.events[parent] for parent in event.parents]
            leaves = {id(p.leaf) for p in parents if p.kind == "parameter"}
            event.cut, event.graph = not leaves <= entered, True
            todo.extend(p for p in parents if p.phase == "forward" and not p.graph)

    def ran(self, index: int, grad_inputs, grad_outputs) -> None:
        """Post hook of a node: `grad_outputs` entered it, `grad_inputs` left it."""
        with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction(), torch.no_grad():
            node = torch._C._current_autograd_node()
            self._note(index, node, grad_inputs, grad_outputs)

    def _note(self, index: int, node, left, entered) -> None:
        maker = self.tape.events[index]
        place = Place.of(maker)
        event = self.tape.add("backward", "op", node.name(), place)
        event.node, event.forward = event.name, index
        _fed(event, self.feeders.pop(node, ()))
        event.inputs = tuple(self.stats(grad) for grad in entered if grad is not None)
        if event.name == "SubBackward0" and node._saved_alpha == 1 and len(left) == 2:
            self._turned(left[1], entered[0])
        event.outputs = tuple(self.stats(grad) for grad in left if grad is not None)
        event.inner = self._inner(node)
        if self.tape.behind:
            self._betrayed(node, event)
        if event.inputs and maker.gradient is None:
            maker.gradient = event.inputs[0]
        for (after, _), grad in zip(node.next_functions, left, strict=False):
            if after is not None and grad is None and isinstance(node, BackwardCFunction):
                self.refused.append((event.index, getattr(node, "_forward_cls", None)))
            if after is not None and grad is not None:
                self.feeders.setdefault(after, []).append((event.index, self.stats(grad)))
        self.unsettled = True

    def _turned(self, grad: Tensor | None, other: Tensor | None) -> None:
        """The gradient of what is subtracted is the other one's with its sign turned."""
        if grad is None or other is None:
            return
        if grad.shape == other.shape and grad.dtype is other.dtype:
            self.seen[id(grad)] = weakref.ref(grad), grad._version, flipped(self.stats(other))

    def _inner(self, node) -> tuple[int, ...]:
        return tuple(index for which, index in self.python if which is node)

    def _betrayed(self, node, event: Event) -> None:
        """Was something that this node saved written through ``.data`` since then?"""
        for name in dir(node):
            if name.startswith("_saved_"):
                saved = getattr(node, name, None)
                if isinstance(saved, Tensor):
                    writer = self.tape.behind.get(self.tape.key(saved), -1)
                    if writer > event.forward:
                        self.wrong.append((writer, event.index))

    def stats(self, grad: Tensor) -> Stats:
        """Measure a gradient once, although two nodes see it."""
        found = self.seen.get(id(grad))
        if found is not None and found[0]() is grad and found[1] == grad._version:
            return found[2]
        stats = self._shared(grad)
        self.seen[id(grad)] = (weakref.ref(grad), grad._version, stats)
        return stats

    def _shared(self, grad: Tensor) -> Stats:
        """A transposed view, or a leaf that takes the gradient over, holds the same entries."""
        whole = grad.layout is torch.strided and (
            grad.is_contiguous() or (grad.dim() == 2 and grad.t().is_contiguous())
        )
        if not whole:
            return measure(grad, counted=0)
        storage = grad.untyped_storage()
        key = (storage._cdata, grad._version, grad.dtype, grad.data_ptr(), grad.numel())
        found = self.held.get(key)
        if found is not None and not found.bad:
            return respan(found, tuple(grad.shape))
        if found is None:
            self.storages.append(storage._weak_ref())
        stats = self.held[key] = measure(grad, counted=0)
        return stats

    def _forget(self) -> None:
        for handle in self.storages:
            torch.UntypedStorage._free_weak_ref(handle)
        self.storages.clear()
        self.held.clear()
        self.seen.clear()

    def settle(self) -> None:
        """After a backward: look at what arrived on the leaves."""
        self.unsettled = False
        for node in [node for node in self.feeders if hasattr(node, "variable")]:
            feeders = self.feeders.pop(node)
            leaf = node.variable
            if leaf is not None and leaf.grad is not None:
                self._arrived(node, leaf, feeders)
        self._forget()

    def _arrived(self, node, leaf: Tensor, feeders: list) -> None:
        tape = self.tape
        source = tape.leaves.get(id(leaf))
        if source is None:
            source = tape.source(leaf, None).event
        maker = tape.events[source]
        event = tape.add(
            "backward", "op", "AccumulateGrad", Place(maker.code, maker.line, None, None)
        )
        event.module = maker.module
        event.node, event.forward = "AccumulateGrad", source
        _fed(event, feeders)
        event.inner = self._inner(node)
        stats = self.stats(leaf.grad)
        event.outputs = (stats,)
        event.leaf = leaf
        maker.gradient = stats
        tape.claim(leaf.grad, event.index, stats)
        self.arrivals.append(Arrival(leaf, leaf.grad, tape.step, stats, event.index))

    def collect(self, inputs: list[Tensor], grads, feeders: dict, outputs: list[Tensor]) -> None:
        """Give the results of torch.autograd.grad their makers."""
        tape = self.tape
        with torch._C._DisableTorchDispatch():
            for leaf, grad in zip(inputs, grads, strict=False):
                if grad is None:
                    continue
                node = leaf.grad_fn or next(
                    (n for n in feeders if getattr(n, "variable", None) is leaf), None
                )
                event = tape.add("backward", "op", "grad", tape.here(4))
                event.node = "grad"
                _fed(event, feeders.pop(node, ()))
                known = tape.known.get(id(leaf))
                event.forward = known.event if known else None
                stats = measure(grad)
                event.outputs = (stats,)
                tape.claim(grad, event.index, stats)
                made_of = (tape.known.get(id(o)) for o in outputs if o.requires_grad)
                derived = ((of.event, event.index, grad.requires_grad) for of in made_of if of)
                self.derived.extend(derived)
                if leaf.is_leaf and leaf.requires_grad:
                    tape.events[event.forward].gradient = stats
                    event.leaf = leaf
                    self.arrivals.append(Arrival(leaf, grad, tape.step, stats, event.index))
                    self.arrivals[-1].taken = True
        self.unsettled = False

    def turn(self) -> None:
        """A new step: forget the graphs of the last one, so that their memory can go."""
        self._forget()
        self.hooked = False
        self.nodes.clear()
        self.python.clear()
        self.feeders.clear()
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def close(self) -> None:
        self.turn()
