"""Why gradients die and numbers blow up, and how to repair them."""

from labkit.bench import Bench
from labkit.check import check
from labkit.checklist import checklist
from labkit.compare import compare
from labkit.fold import answer
from labkit.probes.trace import trace
from labkit.record import hint, predict
from labkit.watch import watch

__version__ = "0.1.0"
__all__ = [
    "Bench",
    "Panel",
    "answer",
    "check",
    "checklist",
    "compare",
    "hint",
    "predict",
    "trace",
    "watch",
]


def __getattr__(name: str):
    """Load the panel, and with it ipywidgets and matplotlib, only when it is asked for."""
    if name == "Panel":
        from labkit.panel import Panel

        return Panel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
