"""The guide's protection points of the operator and of the training, with faults put in front."""

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from labkit.claims.clipping import count, given
from labkit.claims.memory import waiting
from labkit.claims.operator_arrows import backward
from labkit.claims.protection import Outcome, point
from labkit.claims.rollouts import turning
from labkit.claims.roots import guide_root
from labkit.claims.spectral_bounds import settled
from labkit.claims.subjects import CLAMP_EDGE, normal, rooted, slope
from labkit.models.operator import OperatorModel
from labkit.models.spectral import log10_growth, power_sigma, spectral_norm, unit_guide

INF = float("inf")
AT_ZERO = "a gradient of NaN or Inf at 0"


@point(
    "a penalty on norms above 1.05",
    chinese="spectral_penalty: 约束算子范数<1.05",
    where="operator 1",
    claims=("G57", "G58", "D14", "D26"),
    stops=("a norm that the data want at 1.3: it is less",),
    lets_through=(
        "a norm above the bound",
        "1000 steps at the bound",
        "a mixture of bounded bases",
        "growth of a non-normal operator inside the bound",
    ),
)
def the_penalty(bound: float = 1.05) -> Outcome:
    """What is allowed by a penalty, and by its bound."""
    norm = settled(1.0)
    model = OperatorModel(8, 1, 1, n_basis=3, weights="linear")
    with torch.no_grad():
        model.basis.copy_(bound * turning().float().expand(3, 8, 8))
        model.response.fill_(1.0)
        mixed = float(spectral_norm(model.operator(torch.ones(1, 2)))[0])
    shift = 0.9 * torch.eye(32) + (bound - 0.91) * torch.diag(torch.ones(31), 1)
    model.spectral_penalty(max_norm=10.0).backward()
    return {
        "a norm that the data want at 1.3: it is less": norm < 1.29,
        "a norm above the bound": norm <= bound,
        "1000 steps at the bound": bound**1000 < 10,
        "a mixture of bounded bases": mixed <= bound,
        "growth of a non-normal operator inside the bound": 10
        ** float(log10_growth(shift, 200).max())
        < 10,
    }, f"Below the bound it is {float(model.basis.grad.abs().max()):g}; above, alive."


@point(
    "normalise the iterates of the power iteration",
    chinese="power iteration: 归一化防止爆炸",
    where="operator 2",
    claims=("G59",),
    stops=("an iterate that overflows",),
    lets_through=("a zero matrix", "entries of 1e19", "one cold iteration"),
)
def the_power_iteration(normalise=unit_guide) -> Outcome:
    """Matrices of four kinds."""
    large = power_sigma(1e3 * normal(32, 32), normal(32, 1), 40, normalise)[1]
    huge = power_sigma(torch.full((4, 4), 1e19), torch.ones(4, 1), 1, normalise)[0]
    many = normal(50, 32, 32)
    cold = power_sigma(many, normal(50, 32, 1, seed=1), 1, normalise)[0] / spectral_norm(many)
    return {
        "an iterate that overflows": bool(large.isfinite().all()),
        "a zero matrix": bool(normalise(torch.zeros(4, 1)).isfinite().all()),
        "entries of 1e19": abs(float(huge) / 4e19 - 1) < 0.01,
        "one cold iteration": float(cold.mean()) > 0.99,
    }, "None flows through the iterates; that of the norm is u v'."


class _Largest(TorchDispatchMode):
    """Keeps the size of the largest tensor that any operation returns."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(out) if isinstance(t, Tensor)]
        self.entries = max([self.entries, *sizes])
        return out


@point(
    "distances in chunks",
    chinese="energy_distance: 分块计算防止内存溢出",
    where="operator 3",
    claims=("G60",),
    stops=("one tensor of all distances",),
    lets_through=("what waits for backward", "squares that overflow"),
)
def the_chunks(chunk: int = 64, rows: int = 256) -> Outcome:
    """The largest tensor, what waits for backward, and z at 1e20."""
    x, y = normal(rows, 8), normal(rows, 8, seed=1)

    def parts(a: Tensor) -> Tensor:
        return torch.stack([torch.cdist(part, y).sum() for part in a.split(chunk)]).sum()

    with _Largest() as seen:
        parts(x)
    held, whole = waiting(parts, x), waiting(lambda a: torch.cdist(a, y).sum(), x)
    return {
        "one tensor of all distances": seen.entries < rows * rows,
        "what waits for backward": held < 0.5 * whole,
        "squares that overflow": bool(parts(1e20 * x).isfinite()),
    }, f"Unchanged, for {held:.2f} MiB instead of {whole:.2f}."


@point(
    "isnan of the state and of the loss",
    chinese="训练循环: 检测z1_pred的NaN",
    where="operator 4",
    claims=("G61", "G63", "G84"),
    stops=("NaN in the state",),
    lets_through=("Inf in the state", "a state of 1e20", "NaN gradients, loss finite"),
)
def the_check(check=torch.isnan) -> Outcome:
    """States, and a loss whose gradient is NaN."""

    def seen(value: float) -> bool:
        return bool(check(torch.tensor([1.0, value])).any())

    loss, bad, _ = backward(normal(32, 8), rooted)
    return {
        "NaN in the state": seen(torch.nan),
        "Inf in the state": seen(INF),
        "a state of 1e20": seen(1e20),
        "NaN gradients, loss finite": bad == 0 or seen(loss),
    }, "Untouched."


@point(
    "sqrt(clamp(., 0))",
    chinese="clamp x到>=0",
    where="risk matrix",
    claims=("G26", "D02"),
    stops=("NaN of a square below 0", *(() if CLAMP_EDGE else (AT_ZERO,))),
    lets_through=((AT_ZERO,) if CLAMP_EDGE else ()),
)
def the_root(root=guide_root) -> Outcome:
    """Below 0 and at 0."""
    (value, dead), (_, steep) = slope(root, -1.0), slope(root, 0.0)
    return {
        "NaN of a square below 0": value == value,
        AT_ZERO: abs(steep) < INF,
    }, f"Below 0 it is {dead:g}, at 0 {steep:g}."


@point(
    "clip_grad_norm_, then look at the norm",
    chinese="✅ 正确: 先检测再裁剪",
    where="training",
    claims=("G71", "G72", "G73", "D24"),
    stops=("a gradient of 1e6",),
    lets_through=(
        "one NaN: it spreads to all",
        "a finite 1e20: all become 0",
        "one spike: all others stand still",
    ),
)
def the_clipping(max_norm: float = 1.0) -> Outcome:
    """Gradients of three tensors, one of them with the fault."""
    spiked = {v: given([1.0], [v], [2.0]) for v in (1e6, torch.nan, 1e20)}
    for parameters in spiked.values():
        clip_grad_norm_(parameters, max_norm)
    small = float(spiked[1e6][0].grad)
    return {
        "a gradient of 1e6": abs(float(spiked[1e6][1].grad) - max_norm) < 1e-3,
        "one NaN: it spreads to all": count(spiked[torch.nan]) == 1,
        "a finite 1e20: all become 0": count(spiked[1e20], lambda g: g == 0) < 3,
        "one spike: all others stand still": small > 0.1,
    }, f"Scaled: beside a spike of 1e6 a gradient of 1 becomes {small:.0e}."
