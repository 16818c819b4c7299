"""The tape: every recorded event, and which event made the tensor at hand."""

import math
import sys

import torch
from torch import Tensor

from labkit.probes.events import Event
from labkit.probes.frames import (
    NOWHERE,
    Place,
    locate,
    modules_around,
    wrapping,
)
from labkit.probes.measure import glance, measure
from labkit.probes.names import Names
from labkit.probes.stats import Stats


class Known:
    """What the tape knows of one tensor object."""

    __slots__ = ("event", "key", "memory", "slot", "stamp", "stats")

    def __init__(self, key, memory, event, stats, stamp, slot=0):
        self.key, self.memory, self.event, self.slot = key, memory, event, slot
        self.stats, self.stamp = stats, stamp  # as measured when so many events had happened


class Memory:
    """What the tape knows of one storage: the events that wrote to it."""

    __slots__ = ("first", "handle", "leaf", "maker", "spoiler", "writer")

    def __init__(self, handle, maker: int):
        self.handle, self.first, self.maker = handle, maker, maker
        self.leaf = 0  # id of the trainable leaf that lives here
        self.writer = -1  # the last one that changed it in place
        self.spoiler = -1  # the last one that left something bad in it


class Tape(Names):
    """Events in the order in which they happened.

    A tensor is known by its object and its storage together. A storage's weak handle keeps its
    address from being used again while the tape lives, and frees no later than the tape.
    """

    def __init__(self, last_frame: int = 0):
        super().__init__(last_frame)
        self.events: list[Event] = []
        self.step = 0
        self.known: dict[int, Known] = {}
        self.storages: dict[object, Memory] = {}  # by address
        self.leaves: dict[int, int] = {}  # id of a trainable leaf -> its source event
        self.around: dict[int, tuple] = {}  # id of a leaf -> modules that ran at its first use
        self.stepping: Place | None = None  # where a torch optimizer's step was called
        self.optimizing = ""  # name of the optimizer whose step runs
        self.created: dict[int, Event] = {}  # id of a leaf -> the event that made its storage
        self.echoes: dict[float, int] = {}  # numbers that left by .item(), and who let them go
        self.behind: dict[object, int] = {}  # storages written through .data, and by which event
        self.escapes: list[int] = []  # events by which values left for numpy or Python

    # -- tensors ----------------------------------------------------------------------------

    def knows(self, tensor: Tensor) -> bool:
        known = self.known.get(id(tensor))
        return known is not None and known.key == self.key(tensor)

    def key(self, tensor: Tensor):
        try:
            return tensor.untyped_storage()._cdata
        except (NotImplementedError, RuntimeError):
            return (id(tensor),)

    def claim(self, tensor: Tensor, event: int, stats, slot: int = 0) -> None:
        """This event made (or overwrote) this tensor."""
        key, known = self.key(tensor), self.known.get(id(tensor))
        if known is not None and known.key == key:
            known.event, known.stats, known.stamp, known.slot = event, stats, event, slot
            known.memory.maker = event
            return
        memory = self.storages.get(key)
        if memory is None:
            handle = None if isinstance(key, tuple) else tensor.untyped_storage()._weak_ref()
            memory = self.storages[key] = Memory(handle, event)
        memory.maker = event
        self.known[id(tensor)] = Known(key, memory, event, stats, event, slot)

    def look(self, tensor: Tensor, frame) -> Known:
        """What is known of a tensor that an operator is about to read."""
        key, known = self.key(tensor), self.known.get(id(tensor))
        if known is None or known.key != key:
            memory = self.storages.get(key)
            if memory is None:
                return self.source(tensor, frame)
            known = Known(key, memory, memory.maker, measure(tensor), len(self.events))
            self.known[id(tensor)] = known
            if isinstance(tensor, torch.nn.Parameter) and frame is not None:
                self._wrapped(known, frame)
        elif known.memory.writer > known.stamp:
            known.stats = measure(tensor)
            known.stamp = len(self.events)
        if tensor.requires_grad and tensor.is_leaf and not tensor._is_view():
            return self._renewed(tensor, known, frame)
        return known

    def stats(self, tensor: Tensor) -> Stats:
        """As measured when it was last seen, unless some event has written to it since."""
        known = self.known.get(id(tensor))
        if known is None or known.key != self.key(tensor):
            return measure(tensor)
        return known.stats if known.memory.writer <= known.stamp else measure(tensor)

    def _wrapped(self, known: Known, frame) -> None:
        """A Parameter made of a computed tensor: torch does so behind the dispatcher."""
        maker = self.events[known.event]
        if maker.live and maker.phase == "forward":
            place = wrapping(locate(frame, self.last_frame))
            event = self.add("forward", "op", "Parameter", place or Place.of(maker))
            event.parents, event.outputs, event.live = (maker.index,), maker.outputs[:1], True
            known.event = event.index

    def _renewed(self, tensor: Tensor, known: Known, frame) -> Known:
        """A leaf is a source anew in each step, and after each event that wrote to it."""
        event, memory = self.events[known.event], known.memory
        fresh = memory.writer <= known.event and event.step == self.step
        if event.phase == "source" and event.kind == "parameter" and fresh:
            return known
        self.cut(known)
        found = self.source(tensor, frame, maker=max(known.event, memory.writer))
        if id(tensor) not in self.created and self.events[memory.first].phase != "source":
            self.created[id(tensor)] = self.events[memory.first]
        return found

    def source(self, tensor: Tensor, frame, maker: int | None = None, kind: str = "") -> Known:
        """Note a tensor that no recorded event made, or a leaf as some event left it."""
        place = self.stepping
        if place is None:
            place = locate(frame, self.last_frame) if frame is not None else NOWHERE
        trainable = tensor.is_leaf and tensor.requires_grad
        look = measure
        if self.optimizing and not trainable and id(tensor) not in self.names:
            kind, look = "buffer", glance
        elif id(tensor) not in self.names and frame is not None:
            self.discover(frame)
        if kind:
            name = f"{self.optimizing} state" if self.optimizing else ""
        else:
            kind, name = self._called(tensor, trainable, frame)
        event = self.add("source", kind, name or kind, place)
        event.parents = () if maker is None else (maker,)
        stats = look(tensor) if maker is None else self.stats(tensor)
        event.outputs = (stats,)
        event.leaf = tensor if kind in ("parameter", "buffer") else None
        if trainable:
            self._leaf(tensor, event, frame)
        self.claim(tensor, event.index, stats)
        known = self.known[id(tensor)]
        known.memory.leaf = id(tensor) if trainable else known.memory.leaf
        return known

    def _called(self, tensor: Tensor, trainable: bool, frame) -> tuple[str, str]:
        found = self.names.get(id(tensor))
        if found is not None:
            return "parameter" if trainable else found[0], found[1]
        name = self.called(tensor, frame) if frame is not None else ""
        if trainable:
            self.names[id(tensor)] = ("guess", name or "leaf", tensor)
        if tensor.grad_fn is not None:
            return "graph", name or "a result from before the trace"
        return "parameter" if trainable else "input" if tensor.dim() else "constant", name

    def _leaf(self, tensor: Tensor, event: Event, frame) -> None:
        """A trainable leaf, seen for the first time: where it was made, who was running."""
        known = id(tensor) in self.leaves
        self.leaves[id(tensor)] = event.index
        event.leaf = tensor
        if known and self.around[id(tensor)]:
            event.around = self.around[id(tensor)]
        elif frame is not None:
            event.around = tuple(module for module, _ in modules_around(frame, self.last_frame))
        self.around[id(tensor)] = event.around

    def add(self, phase: str, kind: str, name: str, place: Place) -> Event:
        event = Event(len(self.events), self.step, phase, kind, name, place)
        self.events.append(event)
        return event

    def here(self, depth: int = 1) -> Place:
        return locate(sys._getframe(depth), self.last_frame)

    # -- numbers that left the graph ----------------------------------------------------------

    def echo(self, value) -> int | None:
        """The event that let this very number out by ``.item()``; dull numbers match nothing."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if isinstance(value, float) and math.isnan(value):
            return self.echoes.get("nan")
        if value in (0, 1, -1, 2, 0.5):
            return None
        return self.echoes.get(value, self.echoes.get(-value))  # optimizers take a rate away

    def cut(self, known: Known) -> None:
        """A tensor without history is read: did its maker, or its writer, have one to hand on?"""
        for index in {known.event, max(known.event, known.memory.writer)}:
            maker = self.events[index]
            if maker.live and maker.phase == "forward":
                maker.cut = True

    def leaks(self) -> list[int]:
        """Events by which whole tensors left for numpy or lists in this step."""
        here = (self.events[i] for i in self.escapes)
        return [e.index for e in here if e.step == self.step and e.tool is None]

    def let_out(self, value, event: int) -> None:
        if isinstance(value, int | float) and not isinstance(value, bool):
            self.echoes["nan" if value != value else value] = event

    def __del__(self):
        self.close()  # a block whose report nobody reads gives its handles back too

    def close(self) -> None:
        """Give every storage handle back."""
        for memory in self.storages.values():
            if memory.handle is not None:
                torch.UntypedStorage._free_weak_ref(memory.handle)
        self.storages.clear()
        self.known.clear()
