"""The guide's debugging tools, reduced to what they look at (guide, 4.1 to 4.3)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Generator, Tensor, nn

from labkit.claims.entry import Ruling, claim, protection, truth
from labkit.claims.subjects import (
    SoftplusDecoder,
    cells,
    error_of,
    force,
    linear,
    loss_of,
    normal,
    vae,
)
from labkit.models.likelihood import nb_log_likelihood_guide
from labkit.models.vae import NBVAE, sample_z

INF = float("inf")


def looked_at(model: NBVAE, generator: Generator | None = None) -> dict[str, Tensor]:
    """The tensors that the guide's debug_forward_pass prints, behind the first layer."""
    batch = cells()
    with torch.no_grad():
        mu_z, logvar_z = model.encoder(batch.counts, batch.tissue)
        z = sample_z(mu_z, logvar_z, generator or Generator().manual_seed(0))
        mu_x, r_x = model.decoder(z, batch.tissue)
        log_p = nb_log_likelihood_guide(batch.counts, mu_x, r_x)
    return {"mu_z": mu_z, "logvar_z": logvar_z, "z": z, "mu_x": mu_x, "r_x": r_x, "log_p": log_p}


@claim(
    "G74",
    chinese="技巧1: 二分查找NaN源头",
    english="The function finds the source of a NaN by binary search.",
    where="4.1 debug_forward_pass",
    verdict="false",
)
def it_finds_the_source(logvar: float = 89.5) -> Ruling:
    """The guide's model with a logvar that breaks its loss: what the function looks at."""
    model = vae(SoftplusDecoder)
    force(model.encoder.fc_logvar, logvar)
    loss = float(loss_of(model, form="guide").detach())
    flagged = [n for n, t in looked_at(model).items() if not bool(t.isfinite().all())]
    first = error_of(lambda: model.encoder.input_layer(cells().counts))
    noise = Generator().manual_seed(1)
    one, two = (looked_at(model, noise)["z"] for _ in range(2))
    sound = loss == loss and abs(loss) < INF
    return truth(not sound and bool(flagged) and not first), (
        f"It scans and halves nothing: at logvar = {logvar:g} the loss is {loss:g}, and of the six "
        f"tensors that it prints {len(flagged)} are bad, as the KL is not among them; its first "
        "line "
        f"raises {first or 'nothing'}, and two calls see "
        f"{'the same' if one.equal(two) else 'other'} "
        "noise."
    )


def told(t: Tensor) -> str:
    """What the guide's check_tensor says of a tensor, without its numbers."""
    if torch.isnan(t).any():
        return "NaN"
    if torch.isinf(t).any():
        return "Inf"
    t.min(), t.max(), t.mean()  # printed; any of them may raise
    return "well"


@claim(
    "G75",
    chinese="检查张量的统计信息",
    english="check_tensor reports the health of a tensor.",
    where="4.1 check_tensor",
    verdict="incomplete guard",
)
def it_reports_a_tensors_health(told=told) -> Ruling:
    """NaN and Inf alone; both; 1e38; integers; an empty tensor; a mean that overflows."""
    alone = told(torch.tensor([torch.nan, 1.0])), told(torch.tensor([INF, 1.0]))
    both, huge = told(torch.tensor([torch.nan, INF])), told(torch.tensor([1e38]))
    integers = error_of(lambda: told(torch.arange(3)))
    empty = error_of(lambda: told(torch.zeros(0)))
    mean = float(torch.tensor([3e38, 3e38]).mean())
    leaks = both == "NaN" or huge == "well" or bool(integers) or bool(empty)
    return protection(stops=alone == ("NaN", "Inf"), leaks=leaks), (
        f"NaN and Inf are told one at a time (both at once: {both}); 1e38 is {huge}, integer "
        "counts "
        f"raise {integers or 'nothing'}, an empty tensor {empty or 'nothing'}, and the mean of two "
        f"finite 3e38 is {mean:g}."
    )


def drawn(grad: Tensor) -> int:
    """How many entries the guide's histogram shows; it fails where matplotlib's `hist` does.

    `hist` takes its range from the entries that are not NaN and hands both to numpy.histogram.
    """
    values = grad.numpy().flatten()
    if np.isnan(values).all():  # nanmin of nothing is NaN, with a warning
        return int(np.histogram(values, 50, (np.nan, np.nan))[0].sum())
    return int(np.histogram(values, 50, (np.nanmin(values), np.nanmax(values)))[0].sum())


@claim(
    "G76",
    chinese="可视化各层梯度分布",
    english="visualize_gradients shows the distribution of each layer's gradients.",
    where="4.2 visualize_gradients",
    verdict="incomplete guard",
)
def it_shows_every_layer(shown: int = 6) -> Ruling:
    """Histograms of sick gradients; and how many parameters of the NB-VAE are drawn."""
    healthy = drawn(torch.tensor([1.0, 2.0, 3.0]))
    one = drawn(torch.tensor([1.0, torch.nan, 3.0]))
    all_nan, inf, half = (
        error_of(lambda g=g: drawn(g))
        for g in (torch.full((3,), torch.nan), torch.tensor([1.0, INF]), torch.ones(2).bfloat16())
    )
    total = len(list(vae().parameters()))
    leaks = one < 3 or bool(all_nan) or bool(inf) or shown < total
    return protection(stops=healthy == 3, leaks=leaks), (
        f"Of three entries with one NaN it draws {one}; all NaN raises {all_nan or 'nothing'}, one "
        f"Inf {inf or 'nothing'}, bfloat16 {half or 'nothing'}; and of the NB-VAE's {total} "
        f"parameters {min(shown, total)} are drawn."
    )


class Sick(nn.Module):
    """Returns a bad tensor in some wrapping."""

    def __init__(self, wrap: Callable[[Tensor], object], bad: float = torch.nan) -> None:
        super().__init__()
        self.wrap, self.bad = wrap, bad

    def forward(self, x: Tensor) -> object:
        """Hands on x with one bad entry."""
        return self.wrap(x + torch.tensor([self.bad, 0.0, 0.0]))


def hooked(module: nn.Module, **by_name: Tensor) -> str:
    """The error that the guide's forward hook raises; empty if it sees nothing."""

    def look(module: nn.Module, inputs: tuple, output: object) -> None:
        if isinstance(output, Tensor) and output.isnan().any():
            told(inputs[0])  # printed before it raises
            raise RuntimeError("NaN")

    handles = [m.register_forward_hook(look) for m in module.modules()]
    error = error_of(lambda: module(**by_name) if by_name else module(torch.ones(3)))
    for handle in handles:
        handle.remove()
    return error


@claim(
    "G77",
    chinese="注册hook，自动监控NaN产生",
    english="The hooks watch by themselves where a NaN is born.",
    where="4.3 hooks",
    verdict="incomplete guard",
)
def hooks_see_every_nan() -> Ruling:
    """A tensor, a tuple, a dict, Inf, a call by name; and the NB-VAE's own KL overflow."""
    plain = hooked(Sick(lambda t: t))
    missed = [
        what
        for what, module in {
            "in a tuple": Sick(lambda t: (t, t)),
            "in a dict": Sick(lambda t: {"mu": t}),
            "that is Inf": Sick(lambda t: t, INF),
        }.items()
        if not hooked(module)
    ]
    named = hooked(Sick(lambda t: t), x=torch.ones(3))
    functional = not hooked(nn.Sequential(linear(3, 3), nn.Flatten(0))) and bool(
        normal(3).neg().log().isnan().any()
    )
    return protection(stops=plain == "RuntimeError", leaks=bool(missed) or functional), (
        f"A NaN in a plain output is told; one {', one '.join(missed)} is not, nor what is born "
        f"outside a module; and where the module is called by name the hook itself raises "
        f"{named or 'nothing'}."
    )
