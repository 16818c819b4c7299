"""The boxes of the guide's four checklists: what each asks, when, and what helps if it is red."""

from dataclasses import dataclass

OK, FAULT, FOLLOWS, OPEN = "ok", "fault", "follows", "not run"
MARKS = {OK: "✓", FAULT: "✗", FOLLOWS: "↳", OPEN: "–"}
NO_GRAD, NAN, FLOW, STABILITY = "no_grad", "NaN", "gradient flow", "stability"
BEFORE, DURING, AFTER = "before training", "during training", "after training"


@dataclass(frozen=True, slots=True)
class Box:
    """One question of the guide's."""

    key: str
    lists: tuple[str, ...]  # of the guide's four, those that ask it
    when: str
    asks: str
    remedy: str
    after: tuple[str, ...] = ()  # keys: a fault there explains one here


OPS = ("exp", "log", "division", "sqrt")
EARLY = ("data", "initial weights", "first step", *OPS)
CUTS = ("no_grad", "detach", "values")

BOXES = (
    Box("data", (NAN,), BEFORE, "every batch holds finite numbers",
        "drop or repair the entry before training; isnan alone misses Inf and bad counts"),
    Box("trained", (NO_GRAD,), BEFORE, "what the optimizer holds can be trained",
        "requires_grad_(True), or leave it out of the optimizer"),
    Box("held", (NO_GRAD,), BEFORE, "the optimizer holds this model's parameters, each once",
        "build the optimizer from this model's parameters", after=("in the optimizer",)),
    Box("in the optimizer", (NO_GRAD, FLOW), BEFORE, "all that is trainable is in the optimizer",
        "add_param_group, or build the optimizer after the last layer is made"),
    Box("no_grad", (NO_GRAD, FLOW), BEFORE, "no_grad only around what is frozen",
        "take no_grad off what is trained"),
    Box("detach", (FLOW,), BEFORE, "no detach on the way to the loss",
        "remove it, or use it for logging alone"),
    Box("values", (FLOW,), BEFORE, "what is computed with stays a tensor",
        "no item, numpy, tolist, torch.tensor or argmax on the way to the loss",
        after=("no_grad",)),
    Box("path", (FLOW,), BEFORE, "autograd.grad finds a living path to every parameter",
        "find the cut or the dead unit with labkit.trace; a meant stop-gradient: slope=None",
        after=(*CUTS, *EARLY)),
    Box("initial weights", (STABILITY,), BEFORE, "weights start neither too large nor too small",
        "scale them by 1 / sqrt(fan_in), as torch.nn.init does"),
    Box("exp", (STABILITY,), BEFORE, "what goes into an exp is bounded",
        "cap its input with a straight-through gradient, or stay in log space",
        after=("data", "initial weights")),
    Box("log", (STABILITY,), BEFORE, "what goes into a log is above 0",
        "carry the logarithm itself, or log1p; + eps biases whatever is below eps",
        after=("data", "initial weights")),
    Box("division", (STABILITY,), BEFORE, "no denominator is 0 or subnormal",
        "divide in log space, or make the denominator positive by construction",
        after=("data", "initial weights")),
    Box("sqrt", (STABILITY,), BEFORE, "what goes into a sqrt is above 0",
        "mask the zeros before the sqrt: clamp(min=0) leaves an infinite slope at 0",
        after=("data", "initial weights")),
    Box("first step", (NAN,), BEFORE, "the model starts finite: state, loss, gradients",
        "labkit.trace names the line", after=("data", "initial weights", *OPS)),
    Box("loss", (NAN,), DURING, "the loss of every batch is finite",
        "skip the step; labkit.trace on that batch names the line",
        after=(*EARLY, "gradient norm", "state")),
    Box("gradient norm", (NAN,), DURING, "the gradient's norm is neither huge nor vanishing",
        "look at that batch; clip by get_total_norm, after it was found finite",
        after=(*EARLY, *CUTS, "loss", "state")),
    Box("state", (NAN,), DURING, "parameters, buffers and optimizer state stay finite",
        "go back to the last verified state", after=(*EARLY,)),
    Box("final state", (NAN,), AFTER, "parameters, buffers and optimizer state end finite",
        "go back to the last verified state", after=(*EARLY, "state")),
    Box("validation", (NAN,), AFTER, "the validation loss is finite in eval()",
        "look at what only eval() uses, such as running statistics",
        after=(*EARLY, "state", "final state")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """One box with its answer."""

    box: Box
    word: str  # ok, fault, follows, not run
    detail: str

    @property
    def key(self) -> str:
        return self.box.key

    def __str__(self) -> str:
        help = f". Remedy: {self.box.remedy}" if self.word == FAULT else ""
        return f"{MARKS[self.word]} {self.word}: {self.box.asks} ({self.detail}){help}"


@dataclass(frozen=True, repr=False)
class Checklist:
    """All items. True if none is red; ``str`` has one line an item, in the order of training."""

    items: tuple[Item, ...]

    def __bool__(self) -> bool:
        return not self.red

    def __getitem__(self, key: str) -> Item:
        return next(item for item in self.items if item.key == key)

    @property
    def red(self) -> tuple[Item, ...]:
        """What is at fault; what only follows from it is not in here."""
        return tuple(item for item in self.items if item.word == FAULT)

    def of(self, name: str) -> tuple[Item, ...]:
        """The items of one of the guide's lists: no_grad, NaN, gradient flow, stability."""
        return tuple(item for item in self.items if name in item.box.lists)

    def __str__(self) -> str:
        lines = []
        for when in (BEFORE, DURING, AFTER):
            lines.append(f"{when}:")
            lines += [f"  {item}" for item in self.items if item.box.when == when]
        return "\n".join(lines)

    __repr__ = __str__


def judged(faults: dict[str, str], fine: dict[str, str]) -> Checklist:
    """Turn what was found into items; a fault that another one explains only follows from it.

    Args:
        faults: key and what is wrong.
        fine: key and what was seen; a key in neither was not run.
    """
    items = []
    for box in BOXES:
        cause = next((key for key in box.after if key in faults), None)
        if box.key not in faults:
            word = OK if box.key in fine else OPEN
            items.append(Item(box, word, fine.get(box.key, "training stopped before")))
        elif cause:
            items.append(Item(box, FOLLOWS, f"from {cause!r}; {faults[box.key]}"))
        else:
            items.append(Item(box, FAULT, faults[box.key]))
    return Checklist(tuple(items))
