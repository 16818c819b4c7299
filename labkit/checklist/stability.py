"""Every exp, log, division and square root of one traced step, and how near its edge it came."""

from math import inf, log, sqrt

import torch
from torch import nn

from labkit.guide.leaves import reals
from labkit.probes.report import Op, Report
from labkit.probes.stats import Stats

KINDS = {
    "exp": ("exp", "exp2", "expm1", "exp_", "expm1_"),
    "log": ("log", "log2", "log10", "log1p", "log_", "log1p_"),
    "division": ("div", "div_", "true_divide", "reciprocal"),
    "sqrt": ("sqrt", "rsqrt", "sqrt_", "rsqrt_"),
}
HALF = 0.5  # share of exp's range that passes: beyond it the result's square is infinite
SMALL, LARGE = 0.01, 100.0  # of a weight's rms times sqrt(fan_in); torch's layers start near 0.6


def audit(report: Report) -> dict[str, tuple[str, str]]:
    """For each of the four kinds: the first fault in words (or ""), and what was seen."""
    return {kind: _kind(kind, names, report) for kind, names in KINDS.items()}


def _kind(kind: str, names: tuple[str, ...], report: Report) -> tuple[str, str]:
    ops = [op for op in report.ops if op.phase == "forward" and op.name in names and _counts(op)]
    for op in ops:
        wrong = _wrong(kind, op)
        if wrong:
            return f"{op.name} at {op.place or op.group}: {wrong}", ""
    return "", f"{len(ops)} in the first step, all inside" if ops else "none in the first step"


def _counts(op: Op) -> bool:
    """Does a gradient pass through it, or a bad value get out of it? A metric's log may be 0."""
    return op.gradient is not None or op.harmful


def _wrong(kind: str, op: Op) -> str:
    place = 1 if op.name in ("div", "div_", "true_divide") else 0
    if place >= len(op.inputs):  # divided by a Python number
        return ""
    stats = op.inputs[place]
    if not stats.dtype.startswith(("float", "bfloat")) or not stats.size:
        return ""
    info = torch.finfo(getattr(torch, stats.dtype))
    return {"exp": _exp, "log": _log, "division": _division, "sqrt": _sqrt}[kind](op, stats, info)


def _exp(op: Op, stats: Stats, info) -> str:
    limit = HALF * log(info.max)
    return f"input up to {stats.high:.4g}; its square overflows from {limit:.4g}" * (
        stats.high > limit
    )


def _log(op: Op, stats: Stats, info) -> str:
    low = stats.low + op.name.startswith("log1p")
    if low <= 0:
        return f"input down to {stats.low:.4g}"
    return f"input down to {stats.low:.4g}, which is subnormal" if low < info.tiny else ""


def _division(op: Op, stats: Stats, info) -> str:
    if stats.zero:
        return f"{stats.zero} of {stats.size} denominators are 0"
    return f"a denominator of {stats.small:.4g} is subnormal" if stats.small < info.tiny else ""


def _sqrt(op: Op, stats: Stats, info) -> str:
    if stats.low < 0:
        return f"input down to {stats.low:.4g}"
    if stats.low < info.tiny:
        slope = "huge" if stats.low else "infinite"
        return f"input down to {stats.low:.4g}, where the slope is {slope}"
    return ""


def weights(model: nn.Module) -> str:
    """The first weight matrix out of scale, in words, or "". All zeros are meant, not a fault."""
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)
              for p in m.parameters(recurse=False)}  # fmt: skip
    for name, p in model.named_parameters():
        if p.dim() < 2 or id(p) in tables or not p.numel():
            continue
        scale = float(reals(p).square().mean().sqrt()) * sqrt(p.numel() / len(p))
        if 0 < scale < SMALL or LARGE < scale < inf:
            return f"{name}: rms x sqrt(fan_in) is {scale:.3g}, expected {SMALL} to {LARGE:g}"
    return ""
