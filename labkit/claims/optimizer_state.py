"""What an optimizer remembers of one bad gradient, and what it does afterwards."""

import torch
from torch import Tensor

from labkit.claims.entry import Ruling, claim, truth
from labkit.claims.subjects import linear, normal, spoilt

INF = float("inf")


def stepped(optimizer: torch.optim.Optimizer, parameter: Tensor, gradients) -> float:
    """The parameter after one step for each gradient."""
    for gradient in gradients:
        parameter.grad = None if gradient is None else torch.full_like(parameter, gradient)
        optimizer.step()
    return float(parameter.detach())


def one(value: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """A parameter of one entry."""
    return torch.full((1,), value, dtype=dtype, requires_grad=True)


@claim(
    "D07",
    english="A finite gradient can't harm Adam for ever.",
    verdict="false",
)
def a_finite_gradient_cannot_harm_adam(gradient: float = 6e20) -> Ruling:
    """One large finite gradient, then 100 gradients of 1."""
    w = one()
    optimizer = torch.optim.Adam([w], lr=0.1)
    stepped(optimizer, w, [gradient])
    v = float(optimizer.state[w]["exp_avg_sq"])
    before = float(w.detach())
    moved = abs(stepped(optimizer, w, [1.0] * 100) - before)
    return truth(moved > 0), (
        f"After one gradient of {gradient:.0e} Adam's second moment is {v:.2g}, and 100 gradients "
        "of "
        f"1 move the parameter by {moved:.2g}; parameter, gradients and loss are finite all the "
        "time."
    )


@claim(
    "D08",
    english="After one large gradient Adam recovers in a few steps.",
    verdict="false",
)
def adam_recovers_in_a_few_steps(spike: float = 1e4, steps: int = 300) -> Ruling:
    """The length of a step some time after a spike, relative to the learning rate."""
    w = one()
    optimizer = torch.optim.Adam([w], lr=1.0)
    start = stepped(optimizer, w, [1.0] * 10 + [spike] + [1.0] * (steps - 1))
    size = abs(stepped(optimizer, w, [1.0]) - start)
    half_life = 0.693 / (1 - optimizer.defaults["betas"][1])
    return truth(size > 0.9), (
        f"{steps} steps after a gradient of {spike:.0e} among gradients of 1 a step is {size:.1g} "
        "of "
        f"its normal length: the second moment halves every {half_life:.0f} steps."
    )


@claim(
    "D09",
    english="Putting the parameters back, or the gradient to 0, repairs a NaN step.",
    verdict="false",
)
def restored_parameters_repair(with_state: bool = False) -> Ruling:
    """A NaN step, the parameter put back, a good step; then what a gradient of 0 moves."""
    after = {}
    for kind, options in (("SGD", {"momentum": 0.9}), ("Adam", {})):
        w = one()
        optimizer = getattr(torch.optim, kind)([w], lr=0.1, **options)
        stepped(optimizer, w, [1.0])
        state = {"w": w.detach().clone(), "optimizer": _copy(optimizer)}
        stepped(optimizer, w, [torch.nan])
        with torch.no_grad():
            w.copy_(state["w"])
        if with_state:
            optimizer.load_state_dict(state["optimizer"])
        after[kind] = stepped(optimizer, w, [1.0])
    v = one()
    adam = torch.optim.AdamW([v], lr=0.1)
    moved = abs(stepped(adam, v, [1.0]) - stepped(adam, v, [0.0] * 10))
    still = abs(float(v.detach()) - stepped(adam, v, [None] * 10))
    return truth(all(x == x for x in after.values())), (
        f"The next good step makes the parameter {after['SGD']:.2g} under momentum and "
        f"{after['Adam']:.2g} under Adam, whose buffers kept the NaN; and 10 gradients of 0 move "
        "it "
        f"by {moved:.1f} under AdamW, 10 of None by {still:g}."
    )


def _copy(optimizer: torch.optim.Optimizer) -> dict:
    """A state_dict that shares no memory with the optimizer."""
    state = optimizer.state_dict()
    values = {
        k: {n: v.clone() if isinstance(v, Tensor) else v for n, v in entry.items()}
        for k, entry in state["state"].items()
    }
    return {"state": values, "param_groups": state["param_groups"]}


@claim(
    "D18",
    english="`if not isfinite(loss): continue` makes training robust.",
    verdict="false",
)
def skipping_bad_losses_is_robust(rollback: bool = False, poison: int = 10) -> Ruling:
    """60 steps, one of which has a finite loss and a NaN gradient."""
    model = linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    good, updates, skipped = [p.detach().clone() for p in model.parameters()], 0, 0
    for step in range(60):
        optimizer.zero_grad()
        out = model(normal(8, 3, seed=step))
        loss = out.square().mean() + ((out * 0).square().sum().sqrt() if step == poison else 0.0)
        if not loss.isfinite():
            skipped += 1
            if rollback:
                with torch.no_grad():
                    for p, old in zip(model.parameters(), good, strict=True):
                        p.copy_(old)
            continue
        if not spoilt(model.named_parameters()):
            good = [p.detach().clone() for p in model.parameters()]
        loss.backward()
        optimizer.step()
        updates += 1
    finite = not spoilt(model.named_parameters())
    return truth(finite and updates > 50), (
        f"One NaN gradient at step {poison} poisons the parameters; of 60 steps {updates} are made "
        f"and {skipped} skipped, without an error, and the parameters end "
        f"{'finite' if finite else 'as NaN'}."
    )


@claim(
    "D13",
    english="With gradient accumulation a bad micro-batch can be dropped at the step.",
    verdict="false",
)
def a_bad_micro_batch_can_be_dropped_at_the_step(look_at_each: bool = False) -> Ruling:
    """Four micro-batches, one of them with a finite loss and a NaN gradient."""
    total, checked = _accumulated(look_at_each), _accumulated(True)
    return truth(total == total), (
        f"One bad micro-batch of 4 makes the sum of the gradients {total:g}, and at the step "
        "nothing "
        "is left to drop it from; looked at one by one before they are added, three give "
        f"{checked:g}."
    )


def _accumulated(look_at_each: bool) -> float:
    w = one()
    for micro in range(4):
        root = (w * 0).sqrt().sum() if micro == 2 else 0.0  # finite; its slope is not
        (gradient,) = torch.autograd.grad((w * (micro + 1)).sum() + root, w)
        if not look_at_each or gradient.isfinite().all():
            w.grad = gradient if w.grad is None else w.grad + gradient
    return float(w.grad)
