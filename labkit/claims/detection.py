"""Checks that run during training: isnan of a loss, a state, parameters (guide, 2, 3 and 5)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from labkit.claims.entry import Ruling, claim, protection
from labkit.claims.subjects import linear, normal, rooted, spoilt
from labkit.models.energy import energy_distance_guide
from labkit.training.checkpoint import non_finite

INF = float("inf")
Check = Callable[[Tensor], Tensor]


def isnan(value: Tensor) -> Tensor:
    """The guide's check."""
    return value.isnan().any()


@claim(
    "G61",
    chinese="检测z1_pred的NaN",
    english="Checking z1_pred for NaN catches the explosion.",
    where="2 operator guard 4",
    verdict="incomplete guard",
)
def checking_the_state_for_nan_catches(check: Check = isnan) -> Ruling:
    """States of four sizes, and the energy distance that each of them gives."""
    found = {}
    for size in (1e6, 1e20, INF, torch.nan):
        z = normal(16, 4)
        z[0, 0] = size
        found[size] = bool(check(z)), float(energy_distance_guide(z, normal(16, 4, seed=1)))
    missed = [s for s, (told, loss) in found.items() if not told and not abs(loss) < INF]
    return protection(stops=found[torch.nan][0] or found[INF][0], leaks=bool(missed)), (
        f"It tells a NaN in the state; of one entry of 1e20 or Inf it tells nothing, although the "
        f"distance is then {found[1e20][1]:g} and {found[INF][1]:g}."
    )


@claim(
    "G63",
    chinese="if torch.isnan(loss) or torch.isinf(loss):",
    english="Checking the loss for NaN and Inf catches numerical instability.",
    where="3.1 layer 3",
    verdict="incomplete guard",
)
def checking_the_loss_catches(distance=rooted) -> Ruling:
    """Train an operator: what is left of its parameters when the check of the loss fires?"""
    step, whole = _until_caught(distance, look_at_gradients=False)
    sooner, kept = _until_caught(distance, look_at_gradients=True)
    told = not bool(torch.tensor(torch.nan).isfinite() | torch.tensor(INF).isfinite())
    return protection(stops=told, leaks=step >= 0 and not whole), (
        f"The loss of a step is finite while its gradient is NaN: the check fires at step {step}, "
        f"with the parameters {'whole' if whole else 'NaN already'}; a check of the gradients "
        "fires "
        f"at step {sooner}, with the parameters {'whole' if kept else 'NaN already'}."
    )


def _until_caught(distance, look_at_gradients: bool) -> tuple[int, bool]:
    """The step at which the check fires (-1: never), and whether the parameters are finite then."""
    operator, z, target = linear(4, 4), normal(32, 4), normal(32, 4, seed=1)
    optimizer = torch.optim.SGD(operator.parameters(), 0.1)
    for step in range(5):
        optimizer.zero_grad()
        loss = distance(operator(z), target)
        loss.backward()
        gradients = spoilt((n, p.grad) for n, p in operator.named_parameters())
        if not loss.isfinite() or (look_at_gradients and gradients):
            return step, not spoilt(operator.named_parameters())
        optimizer.step()
    return -1, not spoilt(operator.named_parameters())


@claim(
    "G84",
    chinese="每个batch后检测loss: if torch.isnan(loss): raise",
    english="After each batch, check the loss: if isnan(loss), raise.",
    where="quick reference, during training",
    verdict="incomplete guard",
)
def isnan_of_the_loss_is_enough(check: Check = isnan) -> Ruling:
    """Four losses that no training survives."""
    told = {v: bool(check(torch.tensor(v))) for v in (torch.nan, INF, -INF, 1e38)}
    missed = [f"{v:g}" for v, seen in told.items() if not seen]
    return protection(stops=told[torch.nan], leaks=not all(told.values())), (
        f"Of the losses nan, inf, -inf and 1e38 it lets {len(missed)} pass ({', '.join(missed)}), "
        "and "
        "the guide's own layer 3 asks for isinf as well."
    )


@claim(
    "G85",
    chinese="定期检查参数: 是否有参数变为NaN",
    english="Look from time to time whether a parameter has become NaN.",
    where="quick reference, during training",
    verdict="incomplete guard",
)
def looking_at_parameters_is_enough(everything: bool = False) -> Ruling:
    """A NaN parameter; BatchNorm after one infinite input; Adam after one finite gradient."""

    def told(module: nn.Module, optimizer=None) -> bool:
        tree = [module.state_dict() if everything else dict(module.named_parameters())]
        return bool(
            non_finite(tree + ([optimizer.state_dict()] if everything and optimizer else []))
        )

    broken, norm, frozen = linear(2, 2), nn.BatchNorm1d(2), linear(1, 1)
    with torch.no_grad():
        broken.weight[0, 0] = torch.nan
    x = normal(8, 2)
    x[0, 0] = INF
    norm(x)
    optimizer = torch.optim.Adam(frozen.parameters(), lr=0.1)
    for p in frozen.parameters():
        p.grad = torch.full_like(p, 1e21)
    optimizer.step()
    seen = told(broken), told(norm), told(frozen, optimizer)
    buffers, state = non_finite(dict(norm.named_buffers())), non_finite(optimizer.state_dict())
    return protection(stops=seen[0], leaks=not all(seen)), (
        f"It tells a NaN parameter; it misses {len(buffers)} buffers of BatchNorm after one "
        "infinite "
        f"input and {len(state)} numbers of Adam's state after one gradient of 1e21, while every "
        "parameter is finite."
    )


@claim(
    "G87",
    chinese="检查最终模型参数: 所有参数都应是有限值",
    english="If all final parameters are finite and validation gives no NaN, the model is well.",
    where="quick reference, after training",
    verdict="incomplete guard",
)
def finite_parameters_mean_a_sound_model(bad_batch: int = 10, steps: int = 30) -> Ruling:
    """Training that skips one bad batch: parameters, train mode, then eval mode."""
    model = nn.Sequential(linear(3, 4), nn.BatchNorm1d(4), linear(4, 1, seed=1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(steps):
        x = normal(16, 3, seed=step)
        x[0, 0] = torch.nan if step == bad_batch else x[0, 0]
        loss = (model(x) - x[:, :1]).square().mean()
        if loss.isfinite():
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    finite = not spoilt(model.named_parameters())
    trained = bool(model(normal(16, 3)).isfinite().all())
    nans = int(model.eval()(normal(16, 3)).isnan().sum())
    return protection(stops=finite, leaks=nans > 0), (
        f"Batch {bad_batch} is NaN and skipped: every parameter is "
        f"{'finite' if finite else 'bad'}, outputs in train mode are "
        f"{'finite' if trained else 'bad'}, and in eval mode {nans} of 16 are NaN, as BatchNorm's "
        "running mean is."
    )
