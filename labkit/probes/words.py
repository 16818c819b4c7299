"""Remarks in plain words, made from the statistics of an event."""

from labkit.probes.events import Event

_LOGS = ("log", "log2", "log10", "log1p", "digamma", "lgamma")
_GROWS = ("exp", "expm1", "exp2", "cosh", "sinh", "square")


def number(value: float) -> str:
    """At most four figures, without a trailing zero."""
    return f"{value:.4g}"


def birth_words(event: Event, walk=None) -> str:
    """Why this op made a bad value, as far as its inputs tell."""
    if event.phase == "source":
        return _source_words(event)
    if event.name == "AccumulateGrad":
        return _added_words(event.outputs[0])
    if event.phase == "backward" and event.forward is not None and walk is not None:
        return _backward_words(walk.events[event.forward])
    if event.tool is not None and event.tool.unset:
        return "memory that nothing was written to"
    if not event.inputs:
        return ""
    first = event.inputs[0]
    if any(s.bad for s in event.inputs):
        kinds = [s for s in event.inputs if s.bad]
        return f"{kinds[0].bad} of {kinds[0].size} inputs were infinite"
    if event.name in ("std", "var") and event.outputs and event.outputs[0].nan:
        return "too few entries: one has no spread"
    if event.name.rstrip("_") in _LOGS:
        return _low_words(first)
    if event.name.rstrip("_") in ("div", "reciprocal", "rsqrt", "true_divide", "floor_divide"):
        return _divisor_words(event.inputs[-1])
    if event.name.rstrip("_") in ("sqrt", "acos", "asin", "atanh", "acosh"):
        return f"input from {number(first.low)} to {number(first.high)}"
    if event.name.rstrip("_") == "pow":
        return _power_words(event)
    if event.name.startswith(("_weight_norm", "nll_loss")) and (words := _none_words(event)):
        return words
    if event.name.rstrip("_") in _GROWS:
        return f"input up to {number(first.high)}"
    large = max(
        (s for s in event.inputs if s.large == s.large), key=lambda s: s.large, default=None
    )
    return f"input up to {number(large.large)}" if large else ""


def _source_words(event: Event) -> str:
    stats = event.outputs[0]
    words = [
        f"{count} {word}"
        for count, word in ((stats.nan, "NaN"), (stats.pos_inf, "+Inf"), (stats.neg_inf, "-Inf"))
        if count
    ]
    return f"{' and '.join(words)} of {stats.size} entries before any op"


def _added_words(stats) -> str:
    if stats.nan:
        return f"{stats.nan} NaN of {stats.size} entries were in .grad before this backward"
    return f"{stats.bad} Inf of {stats.size} entries: in .grad before this backward, or too large"


def _low_words(stats) -> str:
    if stats.low < 0:
        return f"input down to {number(stats.low)}"
    return f"{stats.zero} of {stats.size} entries were zero" if stats.zero else ""


def _divisor_words(stats) -> str:
    if stats.zero:
        one = "the divisor was zero" if stats.size == 1 else ""
        return one or f"{stats.zero} of {stats.size} divisors were zero"
    return f"divisor down to {number(stats.small)}" if stats.small == stats.small else ""


def _power_words(event: Event) -> str:
    """The base is the first input, unless it is a number; then that is the exponent."""
    first, out = event.inputs[0], event.outputs[0] if event.outputs else None
    if event.tool is not None and event.tool.target == "aten.pow.Scalar":
        return "a negative base" if out and out.nan else f"exponent up to {number(first.high)}"
    if out and out.nan and first.low < 0:
        return f"{out.nan} of {out.size} bases were negative, with an exponent that is not whole"
    if out and first.zero and out.bad:
        return f"{first.zero} of {first.size} bases were zero"
    return f"input up to {number(first.large)}"


def _none_words(event: Event) -> str:
    """A division by the second result, which is zero: norms of rows, or weights of targets."""
    norms = event.outputs[1] if len(event.outputs) > 1 else None
    if norms is None or not norms.zero:
        return ""
    if event.name.startswith("nll_loss"):
        return "no target counts: 0 divided by 0"
    return f"{norms.zero} of {norms.size} norms were zero"


def _backward_words(forward: Event) -> str:
    if not forward.inputs:
        return ""
    stats = forward.inputs[0]
    if stats.zero:
        if stats.size == 1:
            return "its input was zero"
        return f"{stats.zero} of {stats.size} entries of its input were zero"
    if stats.low == stats.low:
        return f"its input from {number(stats.low)} to {number(stats.high)}"
    return ""
