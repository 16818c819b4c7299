"""The guide's diagram of an exploding logvar, arrow by arrow, on the NB-VAE (guide, 2)."""

from functools import partial

import torch
from torch import nn

from labkit.claims.entry import Ruling, claim, truth
from labkit.claims.subjects import (
    DTYPES,
    SoftplusDecoder,
    cells,
    edge,
    force,
    linear,
    loss_of,
    name,
    non_finite,
    normal,
    spoilt,
    spoilt_gradients,
    vae,
)
from labkit.models.likelihood import kl_standard_normal_guide, nb_log_likelihood_guide
from labkit.models.vae import NBVAE, DecoderNB, sample_z

INF = float("inf")


@claim(
    "G39",
    chinese="logvar过大 >20",
    english="logvar > 20 overflows exp, and std = Inf.",
    where="2 VAE path, A to B",
    verdict="false",
)
def std_is_inf_above_20(logvar: float = 20.0, dtype: torch.dtype = torch.float32) -> Ruling:
    """std just above a logvar, and the first logvar at which it is Inf."""
    std = float(torch.exp(0.5 * torch.tensor(logvar + 1, dtype=dtype)))
    first = {
        name(d): edge(non_finite(lambda v: (0.5 * v).exp()), 0.0, 3000.0, d)[1] for d in DTYPES
    }
    return truth(std == INF), (
        f"At {logvar + 1:g}, std is {std:.4g} in {name(dtype)}; it is Inf from "
        + ", ".join(f"{v:.2f} in {d}" for d, v in first.items())
        + "."
    )


@claim(
    "G40",
    chinese="z采样 = mu + std*eps → z=Inf",
    english="With std = Inf, z = mu + std * eps is Inf.",
    where="2 VAE path, B to C",
    verdict="holds with a condition",
)
def an_infinite_std_makes_z_inf(logvar: float = 178.0) -> Ruling:
    """10000 draws at an infinite std; and noise that is exactly 0."""
    mu = torch.zeros(10000)
    z = sample_z(mu, torch.full_like(mu, logvar), torch.Generator().manual_seed(0))
    up, down = float((z == INF).float().mean()), float((z == -INF).float().mean())
    masked = torch.exp(0.5 * torch.tensor(logvar)) * 0.0
    return truth(up == 1, sometimes=up + down == 1), (
        f"{up:.0%} of the draws are +Inf and {down:.0%} -Inf; where the noise is exactly 0, as "
        f"behind a mask, z is {float(masked):g}."
    )


@claim(
    "G41",
    chinese="Decoder输出 → mu_x=Inf",
    english="An infinite z makes the decoder's mu_x infinite.",
    where="2 VAE path, C to D",
    verdict="false",
)
def an_infinite_z_makes_mu_inf(coordinates: int = 1) -> Ruling:
    """Some infinite coordinates of z through a ReLU decoder and a tanh one."""
    z = normal(64, 8)
    z[:, :coordinates] = z[:, :coordinates].sign() * INF
    found = {}
    for layer in (nn.ReLU(), nn.Tanh()):
        decoder = nn.Sequential(linear(8, 32), layer, linear(32, 64, seed=1), nn.Softplus())
        mu = decoder(z).detach()
        found[type(layer).__name__] = (
            float((mu == INF).float().mean()),
            float(mu.isnan().float().mean()),
        )
    (inf, nan), (inf_tanh, nan_tanh) = found.values()
    return truth(inf == 1, sometimes=inf > 0), (
        f"{coordinates} infinite coordinate of 8 makes {nan:.0%} of mu_x NaN and {inf:.0%} Inf "
        f"behind ReLU, as +Inf and -Inf add up; behind tanh {nan_tanh:.0%} and {inf_tanh:.0%}: "
        "finite, and silent."
    )


@claim(
    "G42",
    chinese="log(mu_x) → log(Inf) = Inf",
    english="log(Inf) = Inf makes the loss Inf.",
    where="2 VAE path, D to E",
    verdict="false",
)
def an_infinite_mu_makes_the_loss_inf(mu: float = INF) -> Ruling:
    """The guide's likelihood of counts 0 and 3 at that mu, r = 1."""
    scores = nb_log_likelihood_guide(torch.tensor([0.0, 3.0]), torch.tensor(mu), torch.tensor(1.0))
    logarithm = float(torch.tensor(mu).log())
    return truth(bool((scores == -INF).any())), (
        f"log(mu) is {logarithm:g}, but it is subtracted from log(r + mu), which is "
        f"{float(torch.tensor(mu + 1.0).log()):g} too: the counts 0 and 3 score {scores[0]:g} and "
        f"{scores[1]:g}, so the loss is NaN."
    )


def exploded(logvar: float, sgd_steps: int = 0) -> tuple[NBVAE, float]:
    """The guide's model, unguarded, every logvar forced to a value: after backward, or steps."""
    model = vae(SoftplusDecoder)
    force(model.encoder.fc_logvar, logvar)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = loss = loss_of(model, form="guide")
    for _ in range(sgd_steps):
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss = loss_of(model, form="guide")
    loss.backward()
    return model, float(first.detach())


@claim(
    "G43",
    chinese="loss=Inf → backward → 所有参数=NaN",
    english="loss = Inf, then backward makes all parameters NaN.",
    where="2 VAE path, E to F",
    verdict="false",
)
def an_infinite_loss_makes_all_parameters_nan(logvar: float = 89.5) -> Ruling:
    """Gradients where the KL alone overflows; a constant Inf in the loss; then steps of SGD."""
    model, loss = exploded(logvar)
    bad, total = spoilt_gradients(model), len(list(model.parameters()))
    now = len(spoilt(model.named_parameters()))
    constant = vae(SoftplusDecoder)
    (loss_of(constant, form="guide") + INF).backward()
    later = [len(spoilt(exploded(logvar, n)[0].named_parameters())) for n in (1, 2)]
    layers = sorted({parameter.rsplit(".", 1)[0] for parameter in bad})
    return truth(now == total, sometimes=len(bad) == total), (
        f"At logvar = {logvar:g} the loss is {loss:g}; backward spoils {now} parameters and "
        f"{len(bad)} of {total} gradients, those of {' and '.join(layers)}; then steps of SGD "
        "spoil "
        f"{later[0]} parameters, and {later[1]}; a constant Inf in the loss spoils "
        f"{len(spoilt_gradients(constant))} gradients."
    )


@claim(
    "G44",
    chinese="A[logvar过大 >20] --> B[exp溢出 → std=Inf]",
    english="The diagram shows the order in which an exploding logvar breaks the model.",
    where="2 VAE path, as a whole",
    verdict="false",
)
def std_breaks_first(latents: int = 8) -> Ruling:
    """The first logvar, the same everywhere, at which KL, loss, std and z are not finite."""

    def loss_broken(decoder: type[DecoderNB], v: torch.Tensor) -> bool:
        model = vae(decoder)
        force(model.encoder.fc_logvar, float(v))
        with torch.no_grad():
            return not bool(loss_of(model, cells(8), form="guide").isfinite())

    def z(v: torch.Tensor) -> torch.Tensor:
        draw = torch.Generator().manual_seed(0)
        return sample_z(torch.zeros(8, latents), v.expand(8, latents), draw)

    def kl(v: torch.Tensor) -> torch.Tensor:
        return kl_standard_normal_guide(torch.zeros(8, latents), v.expand(8, latents))

    breaks = {
        "one element's exp(logvar)": non_finite(torch.exp),
        "the KL of a cell": non_finite(kl),
        "the loss": partial(loss_broken, SoftplusDecoder),
        "the loss with r = exp(.)": partial(loss_broken, DecoderNB),
        "z": non_finite(z),
        "std": non_finite(lambda v: (0.5 * v).exp()),
    }
    first = {what: edge(bad, 0.0, 500.0)[1] for what, bad in breaks.items()}
    order = sorted(first, key=first.get)
    return truth(order[0] == "std"), (
        f"In float32, on 8 cells with {latents} latents, not finite is "
        + ", ".join(f"{what} from {first[what]:.1f}" for what in order)
        + ": the KL, which the diagram leaves out, breaks long before std."
    )
