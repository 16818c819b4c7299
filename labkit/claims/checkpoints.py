"""The guide's crash recovery: which state it keeps, and what is missing from it (guide, 4.4)."""

import io
from dataclasses import dataclass

import torch
from torch import Generator, nn

from labkit.claims.entry import Ruling, claim, protection, truth
from labkit.claims.subjects import error_of, linear, normal, spoilt

INF = float("inf")


@dataclass(frozen=True)
class Course:
    """What the guide's loop left behind: where it saved and crashed, and what the file holds."""

    saved: int
    crashed: int
    poisoned: bool  # NaN in the state that is called the last good one
    same_batch: bool


def guides_loop(poison: int, every: int = 100, verify: bool = False) -> Course:
    """Save every so many steps, unchecked; step; then stop at a NaN loss.

    Args:
        poison: the step whose loss is finite and whose gradient is NaN.
        every: steps between two saves.
        verify: save a finite state only.
    """
    model, file, saved = linear(3, 1), None, -1
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for step in range(2 * every):
        x = normal(4, 3, seed=step)
        whole = not spoilt(model.named_parameters())
        if step % every == 0 and (whole or not verify):
            file, saved = io.BytesIO(), step
            torch.save({"model": model.state_dict(), "batch": x}, file)
        optimizer.zero_grad()
        out = model(x)
        root = (
            (out * 0).square().sum().sqrt() if step == poison else 0.0
        )  # finite; its slope is not
        loss = out.square().mean() + root
        loss.backward()
        optimizer.step()
        if loss.isnan():
            break
    file.seek(0)
    kept = torch.load(file)
    return Course(saved, step, bool(spoilt(kept["model"].items())), kept["batch"].equal(x))


@claim(
    "G78",
    chinese="最后正常状态已保存至 last_good_state.pt",
    english="The loop saves the last good state before a crash.",
    where="4.4 crash recovery, last good state",
    verdict="false",
)
def the_last_good_state_is_saved(poison: int = 99, verify: bool = False) -> Ruling:
    """A NaN gradient just before a save."""
    got, checked = guides_loop(poison, verify=verify), guides_loop(poison, verify=True)
    return truth(not got.poisoned, sometimes=False), (
        f"A NaN gradient at step {poison} with a finite loss: the state saved at step {got.saved} "
        "as "
        f"the last good one {'holds NaN' if got.poisoned else 'is finite'}, and the crash is seen "
        "at "
        f"step {got.crashed}; a save that is verified keeps that of step {checked.saved}."
    )


@claim(
    "G79",
    chinese="'model': model.state_dict(),",
    english="Model, batch and epoch are enough to go on from.",
    where="4.4 crash recovery, contents",
    verdict="incomplete guard",
)
def model_batch_and_epoch_are_enough(kept: tuple[str, ...] = ("model",)) -> Ruling:
    """Resume after 20 steps from what was kept; the losses of the next 5 beside the true ones."""
    true = _losses(("model", "optimizer", "noise"))
    apart = {
        parts: max(abs(a - b) for a, b in zip(_losses(parts), true, strict=True))
        for parts in (kept, ("model", "optimizer"))
    }
    cut = io.BytesIO()
    torch.save({"model": torch.zeros(1000)}, cut)
    half = io.BytesIO(cut.getvalue()[: len(cut.getvalue()) // 2])
    broken = error_of(lambda: torch.load(half))
    return protection(stops=all(x < INF for x in true), leaks=apart[kept] > 0), (
        f"Resumed from the {kept[0]} alone the next five losses are up to {apart[kept]:.0e} away "
        "from "
        f"those of the uninterrupted run, with the optimizer {apart[('model', 'optimizer')]:.0e}, "
        "with "
        f"the noise as well 0; and a file cut in half raises {broken or 'nothing'}."
    )


def _losses(kept: tuple[str, ...]) -> list[float]:
    """The five losses after step 20; what is not kept starts anew there."""
    model, noise = nn.Sequential(linear(4, 8), nn.Tanh(), linear(8, 1)), Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for step in range(25):
        if step == 20:
            if "optimizer" not in kept:
                optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
            if "noise" not in kept:
                noise = Generator().manual_seed(1)
        x = normal(16, 4, seed=step)
        noisy = x + 0.02 * torch.randn(16, 4, generator=noise)
        optimizer.zero_grad()
        loss = (model(noisy) - x[:, :1]).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses[20:]


@claim(
    "G80",
    chinese="loss = train_step(model, batch)",
    english="The NaN check in the loop protects the model.",
    where="4.4 crash recovery, the check",
    verdict="false",
)
def the_check_in_the_loop_protects(check_first: bool = False) -> Ruling:
    """A step with a NaN loss, and the check behind it; then what isnan says of Inf and a number."""
    model = linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loss = (model(normal(4, 3)) * torch.nan).sum()
    if not (check_first and loss.isnan()):
        loss.backward()
        optimizer.step()
    bad = spoilt(model.named_parameters())
    infinite = bool(torch.tensor(INF).isnan())
    number = error_of(lambda: torch.isnan(float(loss.detach())))
    return truth(not bad), (
        f"It stands behind the step: when it sees the NaN, {len(bad)} of 2 parameters are NaN; "
        f"of an infinite loss it says {infinite}, and of a loss that is a Python number it raises "
        f"{number or 'nothing'}."
    )
