"""One tracing session: instruments on, steps counted, instruments off, report."""

import sys
import threading

import torch
from torch import Tensor

from labkit.probes.calls import Calls
from labkit.probes.ends import End, final_gradients
from labkit.probes.given import flat, named
from labkit.probes.gradients import Gradients
from labkit.probes.measure import measure
from labkit.probes.pages import keep_pages
from labkit.probes.record import Recorder
from labkit.probes.report import Report
from labkit.probes.shadow import BOUND, Shadow
from labkit.probes.stats import Stats
from labkit.probes.tape import Tape
from labkit.probes.training import Training

_ACTIVE = threading.local()


class Tracing:
    """Instruments over a block of code, the code that builds model and optimizer included.

    Example:
        with labkit.trace() as tracing:
            model = Net()
            optimizer = torch.optim.Adam(model.parameters())
            tracing.watch(model, optimizer)
            for batch in batches:
                train(model, optimizer, batch)
                tracing.step()
        print(tracing.report)
    """

    def __init__(
        self, model=None, optimizers=(), last_frame: int = 0, shadow: bool | float = False
    ):
        self.tape = Tape(last_frame)
        self.gradients = Gradients(self.tape)
        self.recorder = Recorder(self.tape, self.gradients)
        if shadow:
            self.recorder.shadow = Shadow(BOUND if shadow is True else float(shadow))
        self.calls = Calls(self.tape, self.recorder, self.gradients)
        self.training = Training(self.tape, self.recorder, self.gradients, self.calls)
        self.models: list[torch.nn.Module] = []
        self.hidden: dict[int, str] = {}  # id of a leaf in a list of a module -> where it hides
        self.driven = False  # the user's step runs its own backward
        self.given = False  # the user named the optimizers
        self.settled_buffers: dict[str, bool] = {}  # buffer -> bad before the first step?
        self.ends: list[End] = []
        self.returned = ""  # what the step returned in the place of a loss, in words
        self.error: BaseException | None = None
        self._report: Report | None = None
        self._open = False
        self._eager = None
        self._marks = (0, 0)
        self.kept_gradients: dict[int, Stats | None] | None = None
        self.watch(model, optimizers)

    def watch(self, model=None, *optimizers) -> None:
        """Say which model (or models) and optimizers to look at."""
        for key, module in named(model).items():
            prefix = key or (f"{len(self.models)}" if self.models else "")
            self.models.append(module)
            self.tape.adopt(module, prefix)
        for optimizer in flat(optimizers):
            if not hasattr(optimizer, "param_groups"):
                kind = type(optimizer).__name__
                raise TypeError(f"optimizers: expected torch.optim optimizers; got {kind}")
            self.training.add(optimizer)
            self.given = True

    def __call__(self, step) -> None:
        """It is no decorator: which steps to run is said by `trace`, or by a block."""
        raise TypeError(
            "trace: expected a with block, or the step first; a trace is no decorator. "
            "Use trace(step, model=model), or: with trace(model=model) as tracing: step()"
        )

    def __enter__(self) -> "Tracing":
        if getattr(_ACTIVE, "session", None) is not None:
            raise RuntimeError(
                "a trace already runs in this thread; end it before you start another"
            )
        if not self.tape.last_frame:
            self.tape.last_frame = id(sys._getframe(1))
        keep_pages()
        self._note_buffers()
        _ACTIVE.session = self
        try:
            if "torch._dynamo" in sys.modules:  # compiled code is traced as it is written
                self._eager = torch.compiler.set_stance("force_eager")
                self._eager.__enter__()
            self.training.open()
            self.recorder.__enter__()
            self.calls.__enter__()
            self._open = True
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind, error, trace) -> None:
        self.error = error
        calls, recorder, self._open = self.calls, self.recorder, False
        try:
            calls.__exit__(kind, error, trace)
        finally:
            recorder.__exit__(kind, error, trace)
            try:
                if self._unfinished():
                    self._end()
            finally:
                self._close()
        if error is not None:
            _attach(error, self)

    def _close(self) -> None:
        if self._eager is not None:
            self._eager.__exit__(None, None, None)
            self._eager = None
        _ACTIVE.session = None
        self.training.close()
        self.gradients.turn()

    def step(self) -> None:
        """A training step ends here."""
        if not self._open:
            raise RuntimeError("step: the trace is not running; call it inside the with block")
        with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction(), torch.no_grad():
            self._end()

    def _unfinished(self) -> bool:
        return not self.ends or len(self.tape.events) > self._marks[0]

    def _end(self) -> None:
        with torch.no_grad():
            if self.gradients.unsettled:
                self.gradients.settle()
            self.ends.append(End(self))
            self.gradients.turn()
            self.tape.escapes.clear()
            self.tape.optimizing, self.tape.stepping = "", None
            self.tape.step += 1
            self._marks = (len(self.tape.events), len(self.calls.roots))

    def _note_buffers(self) -> None:
        for prefix, root in self.tape.roots:
            for name, buffer in root.named_buffers(prefix=prefix):
                self.settled_buffers.setdefault(name, bool(measure(buffer, counted=0).bad))

    def set_aside(self) -> list[tuple[Tensor, Tensor | None]]:
        """Take the gradients off all leaves, before a backward that nobody asked for."""
        with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
            leaves = [self.tape.events[index].leaf for index in self.tape.leaves.values()]
            owned = [p for module in self.models for p in module.parameters()]
            kept = [(leaf, leaf.grad) for leaf in {id(p): p for p in leaves + owned}.values()]
            for leaf, _ in kept:
                leaf.grad = None
        return kept

    def put_back(self, kept: list[tuple[Tensor, Tensor | None]]) -> None:
        """Every ``.grad`` as it was before."""
        with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction(), torch.no_grad():
            if self.gradients.unsettled:
                self.gradients.settle()
            self.kept_gradients = final_gradients(self)
            for leaf, grad in kept:
                leaf.grad = grad

    @property
    def report(self) -> Report:
        """The story so far; made once the block has ended."""
        if self._open:
            raise RuntimeError("report: the trace still runs; read it after the with block")
        if self._report is None:
            from labkit.probes.story import tell

            self._report = tell(self)
            self.tape.close()
        return self._report


def _attach(error: BaseException, session: Tracing) -> None:
    """An exception passes through; the report travels with it."""
    try:
        error.report = session.report
        error.add_note(f"traced until then: {session.report}")
    except Exception:  # the user's error must arrive whatever happens to ours
        return
