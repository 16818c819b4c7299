"""Which recorded ops a reader needs to see, and which fold into another.

Views, transposes, copies and casts that lose nothing fold into the op that made the value; what
runs inside a Python autograd Function folds into the op that hands out its result.
"""

from labkit.probes.report import Op, Report

PLUMBING = frozenset(
    (
        *("alias", "as_strided", "chunk", "clone", "contiguous", "copy", "detach", "expand"),
        *("empty", "empty_like", "empty_strided", "lift_fresh", "narrow", "new_empty"),
        *("new_empty_strided", "ones_like", "permute", "reshape", "select", "slice", "split"),
        *("split_with_sizes", "squeeze", "t", "transpose", "unbind", "unsafe_view", "unsqueeze"),
        "view",
    )
)
JOINS = frozenset({"cat", "stack"})  # of one tensor
CASTS = frozenset({"to", "to_copy"})
BITS = {"float64": 64, "float32": 32, "bfloat16": 16, "float16": 16}


def is_plumbing(op: Op) -> bool:
    """True for an op that moves or widens numbers but can neither break nor repair them."""
    name = op.name.strip("_")
    alone = name in JOINS and len(op.parents) == 1
    return not op.cut and (name in PLUMBING or alone or (name in CASTS and not _narrows(op)))


def is_drawn(op: Op) -> bool:
    """Forward ops of the user's program that make a tensor."""
    return op.phase == "forward" and bool(op.outputs) and bool(op.group or op.file)


def severed_parameters(report: Report) -> frozenset[int]:
    """Sources that should learn, though the loss cannot reach them."""
    lost = {fate.name for fate in report.harmed if fate.word == "none"}
    return frozenset(op.index for op in report.ops if op.kind == "parameter" and op.name in lost)


def blamed_lines(report: Report) -> frozenset[tuple[str, int]]:
    """File and line of each cut that the report blames, such as a detach in a loop."""
    places = [link.position for link in report.chain if link.event == "cut"]
    ops = (report.ops[position] for position in places if position is not None)
    return frozenset((op.file, op.line) for op in ops)


def owners(forward: list[Op]) -> dict[int, int]:
    """Which op (or source) stands for each op: itself, or the maker of what it moves."""
    owner: dict[int, int] = {}
    for op in forward:
        moves = is_plumbing(op) and op.parents
        owner[op.index] = owner.get(op.parents[0], op.parents[0]) if moves else op.index
    return owner


def inside_functions(forward: list[Op], owner: dict[int, int]) -> dict[int, int]:
    """Ops that run inside a Python autograd Function -> the op that hands out its result.

    Autograd sees one node there, and so does the reader. `owner` is changed to match.
    """
    readers: dict[int, set[int]] = {}
    for op in forward:
        for parent in op.parents:
            readers.setdefault(parent, set()).add(op.index)
    inside: dict[int, int] = {}
    run: list[int] = []  # ops without a node, one after the other
    for op in forward:
        if not op.node:
            run.append(op.index)
            continue
        if op.node.endswith("Backward"):  # torch's own nodes end with a digit
            whole = {*run, op.index}
            inside |= {i: op.index for i in run if readers.get(i, set()) <= whole}
        run = []
    for op, main in owner.items():
        owner[op] = inside.get(op, inside.get(main, main))
    return inside


def _narrows(op: Op) -> bool:
    before = max((BITS.get(stats.dtype, 0) for stats in op.inputs), default=0)
    after = min((BITS.get(stats.dtype, 99) for stats in op.outputs), default=99)
    return after < before
