"""The guide's two gradient tools, reduced to what they decide (guide, 1.5)."""

import warnings

import torch
from torch import Tensor, nn

from labkit.claims.entry import Ruling, claim, protection, truth
from labkit.claims.subjects import error_of, linear, loss_of, normal, vae


def told(grad: Tensor | None, small: float = 1e-8) -> str:
    """What the guide's check_gradient_flow says of one gradient; `small` is its threshold."""
    if grad is None:
        return "no gradient"
    if grad.isnan().any():
        return "contains NaN"
    return "near zero" if grad.abs().max() < small else "normal"


@claim(
    "G12",
    chinese="elif torch.isnan(param.grad).any():",
    english="check_gradient_flow tells None, NaN and near zero from a normal gradient.",
    where="1.5 tool 1, Inf",
    verdict="incomplete guard",
)
def every_sick_gradient_is_told(bad: float = torch.inf) -> Ruling:
    """Show it the three faults that it knows, then an infinite gradient."""
    known = [told(None), told(torch.tensor([torch.nan, 1.0])), told(torch.zeros(2))]
    sick = told(torch.tensor([bad, 1.0]))
    return protection(stops="normal" not in known, leaks=sick == "normal"), (
        f"It tells None, NaN and zero apart, and calls a gradient of {bad} {sick}: Inf is not "
        "NaN, and it is not small."
    )


@claim(
    "G13",
    chinese="param.grad.abs().max() < 1e-8",
    english="A largest gradient entry below 1e-8 marks a vanishing gradient.",
    where="1.5 tool 1, threshold",
    verdict="incomplete guard",
)
def a_small_largest_entry_marks_a_vanishing_gradient(small: float = 1e-8) -> Ruling:
    """One living unit among 999 dead ones; a healthy loss times 1e-10; float16's smallest."""
    uniform = told(torch.full((10,), 1e-12), small)
    dead = torch.zeros(1000)
    dead[0] = 1.0
    hidden = told(dead, small) == "normal"
    w = torch.ones(4, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=0.1, eps=1e-30)
    (w.square().sum() * 1e-10).backward()
    flagged = told(w.grad, small) == "near zero"
    optimizer.step()
    moved = float((1 - w.detach()).max())
    smallest = float(torch.tensor(2.0**-24, dtype=torch.float16))
    return protection(stops=uniform == "near zero", leaks=hidden or flagged), (
        f"999 dead units of 1000 are called {told(dead, small)}; a healthy loss times 1e-10 is "
        f"called {told(w.grad, small)} although Adam moves its weights by {moved:.1f}; and in "
        f"float16 nothing but 0 is below {small:.0e}, as the smallest number is {smallest:.0e}."
    )


@claim(
    "G14",
    chinese="梯度正常",
    english="A parameter whose gradient is called normal is being trained.",
    where="1.5 tool 1, 'gradient normal'",
    verdict="false",
)
def a_normal_gradient_means_training(in_optimizer: bool = False) -> Ruling:
    """A head that is missing from the optimizer: its gradient, and its change in 20 steps."""
    body, head, x = linear(4, 8), linear(8, 1), normal(32, 4)
    before = head.weight.detach().clone()
    trained = [*body.parameters(), *(head.parameters() if in_optimizer else ())]
    optimizer = torch.optim.SGD(trained, 0.05)
    for _ in range(20):
        optimizer.zero_grad()
        (head(body(x)) - 1).square().mean().backward()
        optimizer.step()
    word, moved = told(head.weight.grad), float((head.weight - before).norm().detach())
    return truth(word == "normal" and moved > 0), (
        f"A head that is {'in' if in_optimizer else 'missing from'} the optimizer is called "
        f"{word} with a gradient of {head.weight.grad.norm():.1f}, and after 20 steps it has "
        f"moved by {moved:.2g}."
    )


@claim(
    "G15",
    chinese="trace_gradient_path(loss, z0, z1)",
    english="trace_gradient_path tells the gradient at z0 and z1; none means detach or no_grad.",
    where="1.5 tool 2",
    verdict="false",
)
def a_missing_grad_means_a_cut(retain: bool = False) -> Ruling:
    """The guide's own example: z0 a leaf, z1 computed from it, nothing detached."""
    z0 = normal(10, 4).requires_grad_()
    z1 = z0 @ torch.eye(4) * 0.5
    if retain:
        z1.retain_grad()
    loss = z1.square().mean()
    true = torch.autograd.grad(loss, z1, retain_graph=True)[0]
    loss.backward(retain_graph=True)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        seen = z1.grad
    healthy_path_called_cut = seen is None and bool(true.any())
    return truth(not healthy_path_called_cut), (
        f"z1 is no leaf, so its .grad is {'None' if seen is None else 'kept'} "
        f"({len(heard)} UserWarning), and the tool calls a healthy path cut; autograd.grad gives "
        f"{true.norm():.3f} there."
    )


def own_backward(loss: Tensor) -> None:
    """What both tools begin with."""
    loss.backward(retain_graph=True)


@claim(
    "G16",
    chinese="loss.backward(retain_graph=True)",
    english="The tools can be called in the training loop as they are.",
    where="1.5 tool 2; 4.2",
    verdict="false",
)
def the_tools_have_no_side_effects(tool=own_backward) -> Ruling:
    """Their own backward, after the loop's backward and before it."""

    def model_and_loss():
        model = vae()
        return model, loss_of(model)

    model, loss = model_and_loss()
    loss.backward()
    once = model.encoder.fc_mu.weight.grad.clone()
    after = error_of(lambda: tool(loss))
    model, loss = model_and_loss()
    tool(loss)
    loss.backward()
    ratio = float(model.encoder.fc_mu.weight.grad.norm() / once.norm())
    return truth(not after and ratio == 1), (
        f"Called after the loop's backward they raise {after or 'nothing'}; called before it they "
        f"make every gradient {ratio:.1f} times as large, as .grad is summed."
    )


@claim(
    "G83",
    chinese="检查模型初始化是否正常: check_gradient_flow(model)",
    english="Before training, check_gradient_flow(model) tells whether the start is sound.",
    where="quick reference, before training",
    verdict="false",
)
def it_judges_a_model_before_training(backward_first: bool = False) -> Ruling:
    """A healthy model that has seen no backward."""
    model: nn.Module = vae()
    if backward_first:
        loss_of(model).backward()
    words = [told(p.grad) for p in model.parameters()]
    return truth(words.count("normal") == len(words)), (
        f"Of a healthy model before its first backward it calls {words.count('no gradient')} of "
        f"{len(words)} parameters 'no gradient': .grad does not exist yet."
    )
