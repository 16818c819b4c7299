"""A second, exact run beside the first: every forward op again in float64."""

import weakref

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from labkit.probes.events import Event
from labkit.probes.finding import Finding
from labkit.probes.flow import Flow
from labkit.probes.verdict import Verdict

BOUND = 1e-2  # relative error of an op's result that counts as wrong

HALF = 10  # half precision may be this much further off
NOISE = 1e-13  # share of the inputs below which a float64 result is rounding too

_LOW = (torch.float32, torch.float16, torch.bfloat16)
_RANDOM = {"randn", "rand", "normal", "normal_", "uniform_", "bernoulli", "bernoulli_"} | {
    *("native_dropout", "randn_like", "rand_like", "exponential_", "multinomial", "randperm"),
    *("_sample_dirichlet", "_standard_gamma", "poisson", "cauchy_", "log_normal_", "geometric_"),
}


class Shadow:
    """Float64 twins of the tensors at hand.

    The twin of an op's result is the op on the twins of its inputs; random draws and integers
    are taken over as they are, so that both runs see the same noise and take the same branches.
    """

    def __init__(self, bound: float = BOUND):
        self.bound = bound
        self.twins: dict[int, tuple] = {}

    def twin(self, tensor: Tensor) -> Tensor:
        found = self.twins.get(id(tensor))
        if found is not None and found[0]() is tensor:
            return found[1]
        return self._keep(tensor, tensor.detach().double())

    def _keep(self, tensor: Tensor, twin: Tensor) -> Tensor:
        self.twins[id(tensor)] = (weakref.ref(tensor), twin)
        return twin

    def before(self, args, kwargs):
        """The same call on twins; made before the op, which may overwrite its inputs."""
        return pytree.tree_map(self._exact, (args, kwargs))

    def _exact(self, thing):
        if isinstance(thing, Tensor):
            return self.twin(thing) if thing.dtype in _LOW else thing
        return torch.float64 if thing in _LOW and isinstance(thing, torch.dtype) else thing

    def after(self, tool, func, call, out) -> float:
        """Run the op on the twins; the relative error of its worst result."""
        results = [x for x in pytree.tree_leaves(out) if isinstance(x, Tensor)]
        if tool.name in _RANDOM or tool.unset or not any(map(_low, results)):
            self.take_over(results)
            return 0.0
        args, kwargs = call
        try:
            exact = [x for x in pytree.tree_leaves(func(*args, **kwargs)) if isinstance(x, Tensor)]
        except (RuntimeError, NotImplementedError):
            self.take_over(results)
            return 0.0
        inputs = [x for x in pytree.tree_leaves(call) if isinstance(x, Tensor)]
        size = max((_size(x) for x in inputs if x.dtype is torch.float64), default=0.0)
        errors = [0.0]
        for result, twin in zip(results, exact, strict=True):
            if _low(result):
                errors.append(_error(result, self._keep(result, twin), size))
        return max(errors)

    def take_over(self, tensors) -> None:
        """Make the twins equal to what the working dtype has; views of a twin follow."""
        for tensor in filter(_low, tensors):
            found = self.twins.get(id(tensor))
            if found is not None and found[0]() is tensor:
                found[1].copy_(tensor.detach())
            else:
                self._keep(tensor, tensor.detach().double())


def _low(tensor: Tensor) -> bool:
    return tensor.dtype in _LOW


def _size(tensor: Tensor) -> float:
    return tensor.abs().amax().item() if tensor.numel() else 0.0


def _error(result: Tensor, twin: Tensor, entered: float) -> float:
    """Largest difference over the largest exact magnitude.

    0 where either is not finite, where the exact result is below the working dtype's range, and
    where it is no more than float64's own rounding of inputs as large as `entered`.
    """
    if not result.numel() or result.layout is not torch.strided:
        return 0.0
    gap, size = _size(result.detach().double() - twin), _size(twin)
    if not gap < float("inf") or size < torch.finfo(result.dtype).tiny or size < NOISE * entered:
        return 0.0
    return gap / size / (HALF if result.dtype is not torch.float32 else 1)


def inexact(session, flow: Flow) -> Finding | None:
    """The first op beyond the bound on the way to a loss that is itself beyond it."""
    shadow = session.recorder.shadow
    if shadow is None:
        return None
    wrong = [root for root in session.calls.roots if flow.events[root.event].error > shadow.bound]
    if not wrong:
        return None
    above = flow.above & {e.index for e in flow.events if e.error > shadow.bound}
    event = flow.events[min(above)]
    remark = f"relative error {event.error:.1g} against float64; {_cancelled(event)}"
    return Finding(Verdict.WRONG, event, flow.way(event.index, flow.above), remark, at=event.index)


def _cancelled(event: Event) -> str:
    inputs = max((s.large for s in event.inputs if s.large == s.large), default=0.0)
    outputs = max((s.large for s in event.outputs if s.large == s.large), default=0.0)
    return f"inputs up to {inputs:.4g}, result up to {outputs:.4g}"
