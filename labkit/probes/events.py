"""The recorder's own notes, one per event; `Report` is made of them afterwards."""


class Event:
    """A source, an operator that ran, or an autograd node that ran. Mutable; never leaves us."""

    __slots__ = (
        *("index", "step", "phase", "kind", "name", "tool", "node", "module", "code", "line"),
        *("parents", "inputs", "outputs", "gradient", "forward", "cut", "live", "graph"),
        *(
            "bypass",
            "scalars",
            "harmful",
            "mutates",
            "value",
            "fed",
            "leaf",
            "around",
            "inner",
            "error",
            "applied",
        ),
    )

    def __init__(self, index: int, step: int, phase: str, kind: str, name: str, place):
        self.index, self.step, self.phase, self.kind, self.name = index, step, phase, kind, name
        self.module, self.code, self.line = place.module, place.code, place.line
        self.tool = None
        self.node = ""
        self.parents = ()
        self.inputs = ()
        self.outputs = ()
        self.gradient = None
        self.forward = None
        self.cut = False
        self.live = False  # some input required grad
        self.graph = True  # grad mode was on
        self.bypass = False  # ran while a user's detach or .data was called
        self.scalars = ()
        self.harmful = False
        self.mutates = ()
        self.value = None  # what .item() returned
        self.fed = ()  # backward: (event, what it sent) for each gradient that entered
        self.leaf = None
        self.error = 0.0  # shadow mode: relative error against float64
        self.inner = ()  # backward: operators that Python ran inside this node
        self.applied = None  # the custom Function in whose forward it ran, where that was called
        self.around = ()  # source: modules that ran when it was first used

    @property
    def bad(self) -> bool:
        return any(stats.nan or stats.pos_inf or stats.neg_inf for stats in self.outputs)

    @property
    def has_nan(self) -> bool:
        return any(stats.nan for stats in self.outputs)

    @property
    def bad_input(self) -> bool:
        return any(stats.nan or stats.pos_inf or stats.neg_inf for stats in self.inputs)

    @property
    def nan_input(self) -> bool:
        return any(stats.nan for stats in self.inputs)
