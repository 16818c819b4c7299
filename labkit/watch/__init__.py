"""Always on in real training: one check a step, and an exact replay of what went wrong."""

from labkit.watch.entrance import watch
from labkit.watch.trigger import Blowup, Trigger
from labkit.watch.watcher import Watch

__all__ = ["Blowup", "Trigger", "Watch", "watch"]
