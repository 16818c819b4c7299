"""What cuts a path on the way back: detach, .item() and their kin (guide, 1.3 and 1.4)."""

import torch
from torch import Tensor

from labkit.claims.entry import Ruling, claim, truth
from labkit.claims.subjects import error_of, normal


@claim(
    "G08",
    chinese="z_detached = z.detach()  # ← 切断梯度",
    english="detach cuts the chain: no gradient reaches the encoder.",
    where="1.3 detach",
    verdict="holds with a condition",
)
def detach_lets_no_gradient_through(detach=Tensor.detach) -> Ruling:
    """z detached on the only way; then the noise part of a sample, with the KL as second way."""
    w = torch.ones(3, requires_grad=True)
    only = error_of(detach(w * 2).sum().backward)
    noise = normal(500)
    partial, whole = (_slope_in_logvar(noise, cut) for cut in (detach, Tensor.clone))
    return truth(bool(only) and partial == 0, sometimes=bool(only)), (
        f"On the only way backward raises {only or 'nothing'}; with the KL as a second way the "
        f"slope in logvar is {partial:.2f}, finite, not zero and wrong: the true one is "
        f"{whole:.2f}."
    )


def _slope_in_logvar(noise: Tensor, cut) -> float:
    """d(reconstruction + KL)/d logvar at logvar = 1, with the noise part detached or not."""
    logvar = torch.ones((), requires_grad=True)
    z = 1.0 + cut((0.5 * logvar).exp() * noise)
    loss = 3 * z.square().mean() + 0.5 * (logvar.expm1() - logvar)
    return float(torch.autograd.grad(loss, logvar)[0])


@claim(
    "G09",
    chinese="用于记录/可视化（不需要梯度）",
    english="detach is right for logging and for stop-gradient.",
    where="1.3 detach, when to use it",
    verdict="holds with a condition",
)
def a_detached_copy_is_safe_to_log(edit=Tensor.zero_) -> Ruling:
    """Read a detached copy of exp(2); then edit it, one of .data, and a clone."""

    def slope_after(take) -> float | str:
        x = torch.tensor([2.0], requires_grad=True)
        y = x.exp()
        take(y)
        return error_of(y.sum().backward) or float(x.grad)

    true = slope_after(lambda y: y.detach().max())
    detached, data, clone = (
        slope_after(take)
        for take in (
            lambda y: edit(y.detach()),
            lambda y: edit(y.data),
            lambda y: edit(y.detach().clone()),
        )
    )
    return truth(true == detached == data, sometimes=true == clone), (
        f"Read only, the gradient stays {true:.2f}; edited in place, the detached copy makes "
        f"backward raise {detached}, .data silently makes the gradient {data}, and a clone "
        f"leaves it {clone:.2f}."
    )


def weight_decay(w: Tensor) -> Tensor:
    """A regulariser, which has a graph of its own."""
    return 0.2 * w.square().sum()


@claim(
    "G10",
    chinese="combined_loss = loss_value + regularization  # 无法反向传播",
    english="With loss.item() the combined loss cannot be back-propagated.",
    where="1.4 .item()",
    verdict="holds with a condition",
)
def a_loss_with_item_cannot_be_back_propagated(weight_decay=weight_decay) -> Ruling:
    """Train on data.item() + regulariser and on data + regulariser, 100 steps each."""
    x = normal(64, 4)
    target = x @ torch.tensor([1.0, -1.0, 1.0, 1.0])

    def trained(number: bool) -> tuple[str, float, float]:
        w = torch.full((4,), 0.5, requires_grad=True)
        optimizer = torch.optim.SGD([w], 0.1)
        for _ in range(100):
            optimizer.zero_grad()
            data = (x @ w - target).square().mean()
            error = error_of(((data.item() if number else data) + weight_decay(w)).backward)
            optimizer.step()
        return error, float(data.detach()), float(w.detach().norm())

    (error, data, size), (_, whole, kept) = trained(True), trained(False)
    severed = size < 0.1 * kept
    return truth(bool(error), sometimes=severed), (
        f"Backward raises {error or 'nothing'}: the regulariser has a graph and is trained alone, "
        f"so the weights shrink to {size:.1g} and the data term stays {data:.1f}; with the tensor "
        f"it reaches {whole:.2f}."
    )


@claim(
    "G90",
    chinese="确认没有不必要的detach()",
    english="Have no needless detach or no_grad, and keep intermediate values tensors.",
    where="quick reference, gradient flow",
    verdict="holds",
)
def needless_cuts_cut() -> Ruling:
    """Each cut of the list severs; so do four that it does not name."""
    x = torch.ones(3, requires_grad=True)
    y = x * 1.5
    with torch.no_grad():
        under = y * 2
    listed = [y.detach(), under, torch.tensor(y.sum().item())]
    unlisted = {
        "torch.tensor([...])": torch.tensor(y.tolist()),
        ".data": y.data,
        "argmax": y.argmax(),
        "a comparison": (y > 1).float(),
    }
    also = [name for name, value in unlisted.items() if not value.requires_grad]
    rounded = float(torch.autograd.grad(y.round().sum(), x)[0].abs().sum())
    return truth(not any(value.requires_grad for value in listed)), (
        f"detach, no_grad and .item() sever each; the list leaves out {', '.join(also)}, and "
        f"round, which stays connected with a gradient of {rounded:.0f}."
    )
