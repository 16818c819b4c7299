"""What the dispatcher's schema says about an operator: its name, what it overwrites, its kind."""

import torch

_UNSET = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "empty_permuted",
}
_MADE = {  # operators whose values are written down by the user, not computed
    *("full", "full_like", "new_full", "fill", "fill_", "masked_fill", "masked_fill_"),
    *("scalar_tensor", "lift_fresh", "constant_pad_nd", "zeros", "ones", "zeros_like", "ones_like"),
}
_READ = {"_local_scalar_dense", "item", "equal", "is_nonzero"}
_MOVED = {  # same entries in another shape or place, never a new value
    *(
        "view",
        "_unsafe_view",
        "t",
        "transpose",
        "permute",
        "unsqueeze",
        "squeeze",
        "alias",
        "detach",
    ),
    *("lift_fresh", "_reshape_alias", "unsafe_view", "view_as_real", "clone", "contiguous"),
}

_HIDDEN_WRITES = {  # running statistics that the schema does not admit to
    "native_batch_norm": ((3, "running_mean"), (4, "running_var")),
    "cudnn_batch_norm": ((3, "running_mean"), (4, "running_var")),
    "miopen_batch_norm": ((3, "running_mean"), (4, "running_var")),
}


class Tool:
    """One operator overload."""

    __slots__ = (
        "copies",
        "func",
        "made",
        "moved",
        "name",
        "quiet",
        "read",
        "shaped",
        "target",
        "unset",
        "writes",
    )

    def __init__(self, func):
        schema = func._schema
        self.func = func  # held, so that its id stays its own
        self.target = str(func)
        self.name = schema.name.rpartition("::")[2]
        base = self.name.rstrip("_") if not self.name.startswith("_") else self.name
        self.writes = tuple(
            (position, argument.name)
            for position, argument in enumerate(schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        )
        if self.name in _HIDDEN_WRITES:
            self.writes = _HIDDEN_WRITES[self.name]
        self.quiet = schema.name.startswith(("profiler::", "prim::")) or self.name in (
            "set_",
            "is_same_size",
            "resize_",
            "sym_size",
            "_has_compatible_shallow_copy_type",
        )
        self.unset = base in _UNSET
        self.made = self.name in _MADE
        self.moved = base in _MOVED and not self.writes
        self.copies = base in ("copy", "_to_copy", "to", "clone")
        self.read = self.name in _READ
        self.shaped = base.endswith("_like") or base.startswith("new_")  # reads no value


_TOOLS: dict[int, Tool] = {}


def tool_of(func) -> Tool | None:
    """The operator's card; None for what has no schema (higher-order operators)."""
    tool = _TOOLS.get(id(func))  # an overload's own hash is slow
    if tool is None and isinstance(func, torch._ops.OpOverload):
        tool = _TOOLS[id(func)] = Tool(func)
    return tool
