"""What things are called: parameters by their module, other tensors by the user's variables."""

import torch
from torch import Tensor

from labkit.probes.frames import modules_around, user_frame, user_frames


class Names:
    """The modules that are known, and what their parts are called."""

    def __init__(self, last_frame: int = 0):
        self.last_frame = last_frame
        self.names: dict[int, tuple[str, str, Tensor]] = {}  # id -> kind, name, tensor
        self.paths: dict[int, tuple[str, object]] = {}  # id of a module -> path, module
        self.roots: list = []

    def adopt(self, module: torch.nn.Module, prefix: str = "") -> None:
        """Learn the names of a module's parts."""
        if id(module) in self.paths:
            return
        self.roots.append((prefix, module))
        for path, part in module.named_modules(prefix=prefix):
            self.paths.setdefault(id(part), (path, part))
        parts = ("parameter", module.named_parameters), ("buffer", module.named_buffers)
        for kind, named in parts:
            for name, tensor in named(prefix=prefix):
                if self.names.get(id(tensor), ("",))[0] in ("", "guess"):
                    self.names[id(tensor)] = (kind, name, tensor)

    def discover(self, frame) -> None:
        """Learn of modules that run but were not handed in."""
        for module, caller in reversed(modules_around(frame, self.last_frame)):
            if id(module) not in self.paths:
                lonely = not self.roots
                self.adopt(module, "" if lonely else self.called(module, caller) or "")

    def called(self, thing, frame) -> str:
        """What the user's code calls an object, "" if nothing does."""
        for scope in reversed(user_frames(frame, self.last_frame)):
            local, free = scope.f_locals, scope.f_code.co_freevars
            outer = {name: local[name] for name in free if name in local}
            for names in (outer, local, scope.f_globals):
                for name, value in names.items():
                    if value is thing and not name.startswith("_"):
                        return name
        return self._inside(thing, user_frame(frame))

    def _inside(self, thing, frame) -> str:
        """Its place in the object or the containers at hand."""
        if frame is None:
            return ""
        owner = frame.f_locals.get("self")
        for name, value in getattr(owner, "__dict__", {}).items():
            if value is thing:
                return f"self.{name}"
        for name, value in frame.f_locals.items():
            if isinstance(value, dict | list | tuple) and len(value) < 1000:
                pairs = value.items() if isinstance(value, dict) else enumerate(value)
                for key, item in pairs:
                    if item is thing:
                        return f"{name}[{key!r}]"
        return ""
