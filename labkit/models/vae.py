"""The NBVAE under the guide's names: encoder, decoder, sampling and the ELBO.

Letters: `x` counts (cell, gene), `z` latent state (cell, latent), `mu_z` and `logvar_z` mean and
log-variance of q(z | x), `mu_x` expected count, `r_x` inverse dispersion, `h` hidden units.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.models.data import Cells
from labkit.models.guards import REPAIRED, Function, Guards, unguarded
from labkit.models.likelihood import (
    kl_standard_normal,
    kl_standard_normal_guide,
    nb_log_likelihood_from_logs,
    nb_log_likelihood_guide,
)

FORMS = ("stable", "guide")
LINKS = ("exp", "softplus")


def check_shape(name: str, tensor: Tensor, expected: tuple[int | str, ...]) -> None:
    """Raise a ValueError unless the shape fits; a word stands for any size."""
    if tensor.ndim != len(expected) or any(
        isinstance(want, int) and want != got
        for want, got in zip(expected, tensor.shape, strict=True)
    ):
        wanted = "(" + ", ".join(map(str, expected)) + ")"
        raise ValueError(
            f"{name}: expected shape {wanted}, got {tuple(tensor.shape)}. "
            "Every input has one row per cell; the other sizes were fixed when the model was built."
        )


class Encoder(nn.Module):
    """Counts and tissue to `mu_z` and `logvar_z`, each (cell, latent)."""

    def __init__(self, n_genes: int, latent_dim: int, n_tissues: int, hidden: int) -> None:
        super().__init__()
        self.n_genes, self.n_tissues = n_genes, n_tissues
        self.input_layer = nn.Linear(n_genes + n_tissues, hidden)
        self.fc_mu = nn.Linear(hidden, latent_dim)
        self.fc_logvar = nn.Linear(hidden, latent_dim)

    def forward(self, x: Tensor, tissue: Tensor) -> tuple[Tensor, Tensor]:
        check_shape("x", x, ("cell", self.n_genes))
        check_shape("tissue", tissue, (len(x), self.n_tissues))
        h = F.relu(self.input_layer(torch.cat([torch.log1p(x), tissue], dim=-1)))
        return self.fc_mu(h), self.fc_logvar(h)


class DecoderNB(nn.Module):
    """Latent state and tissue to the negative binomial's `mu_x` and `r_x`, each (cell, gene).

    `link` says how the outputs become positive: `exp`, or `softplus` as in the guide.
    """

    def __init__(self, n_genes: int, latent_dim: int, n_tissues: int, hidden: int, link: str):
        super().__init__()
        if link not in LINKS:
            raise ValueError(f"link: expected {' or '.join(LINKS)}; got {link!r}")
        self.link, self.latent_dim, self.n_tissues = link, latent_dim, n_tissues
        self.hidden = nn.Linear(latent_dim + n_tissues, hidden)
        self.fc_mu = nn.Linear(hidden, n_genes)
        self.fc_r = nn.Linear(hidden, n_genes)
        self.register_buffer("reference_library", torch.ones(()))  # library=None means this size

    def outputs(self, z: Tensor, tissue: Tensor) -> tuple[Tensor, Tensor]:
        """The two unconstrained outputs, before the link."""
        check_shape("z", z, ("cell", self.latent_dim))
        check_shape("tissue", tissue, (len(z), self.n_tissues))
        h = F.relu(self.hidden(torch.cat([z, tissue], dim=-1)))
        return self.fc_mu(h), self.fc_r(h)

    def logs(
        self, z: Tensor, tissue: Tensor, library: Tensor | None = None, guard: Function = unguarded
    ) -> tuple[Tensor, Tensor]:
        """Return log mu_x and log r_x, the latter behind `guard`: neither underflows."""
        log_mu, log_r = self.outputs(z, tissue)
        if self.link == "softplus":
            log_mu, log_r = F.softplus(log_mu).log(), F.softplus(log_r).log()
        if library is not None:
            log_mu = log_mu + self.relative(library, z).log()
        return log_mu, guard(log_r)

    def forward(
        self, z: Tensor, tissue: Tensor, library: Tensor | None = None, guard: Function = unguarded
    ) -> tuple[Tensor, Tensor]:
        """Return mu_x and r_x, the latter behind `guard` (the guide adds eps)."""
        link = torch.exp if self.link == "exp" else F.softplus
        mu, r = (link(output) for output in self.outputs(z, tissue))
        if library is not None:
            mu = mu * self.relative(library, z)
        return mu, guard(r)

    def relative(self, library: Tensor, z: Tensor) -> Tensor:
        """Library size over the reference, shape (cell, 1)."""
        check_shape("library", library, (len(z),))
        return (library / self.reference_library).unsqueeze(-1)


def sample_z(mu: Tensor, logvar: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw z = mu + std * noise, std = exp(logvar / 2).

    Breaks when: logvar > 177.45 in float32 (22.19 in float16): std is Inf; z follows.
    """
    noise = torch.randn(mu.shape, generator=generator, dtype=mu.dtype, device=mu.device)
    return mu + torch.exp(0.5 * logvar) * noise


class NBVAE(nn.Module):
    """Negative binomial VAE, conditioned on tissue.

    Args:
        n_genes, latent_dim, n_tissues: sizes of x, z and the one-hot tissue.
        hidden: width of the one hidden layer on either side.
        link: see `DecoderNB`.
        seed: of the initial weights; the global generator is left as it was.
    """

    def __init__(
        self,
        n_genes: int,
        latent_dim: int,
        n_tissues: int,
        hidden: int = 128,
        link: str = "exp",
        seed: int = 0,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = Encoder(n_genes, latent_dim, n_tissues, hidden)
            self.decoder = DecoderNB(n_genes, latent_dim, n_tissues, hidden, link)

    @classmethod
    def for_cells(cls, cells: Cells, latent_dim: int = 8, **options) -> "NBVAE":
        """A model of the cells' sizes whose decoder starts at each gene's mean rate."""
        model = cls(cells.counts.shape[1], latent_dim, cells.tissue.shape[1], **options)
        reference = cells.library.median()
        mean = (cells.counts.sum(0) + 0.5) / cells.library.sum() * reference
        start = mean.log() if model.decoder.link == "exp" else mean.expm1().log()
        with torch.no_grad():
            model.decoder.reference_library.copy_(reference)
            model.decoder.fc_mu.bias.copy_(start)
        return model


def elbo_loss(
    x: Tensor,
    tissue: Tensor,
    model: NBVAE,
    library: Tensor | None = None,
    guards: Guards = REPAIRED,
    form: str = "stable",
    beta: float = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Negative evidence lower bound, in nats per cell, and its two parts.

    Args:
        x: counts, shape (cell, gene).
        tissue: one-hot, shape (cell, tissue).
        library: shape (cell,); None: every cell has the decoder's reference size.
        guards: the protection points; `OFF`, `GUIDE`, `REPAIRED` or your own.
        form: `stable` (likelihood from logarithms, KL by expm1) or `guide` (from mu_x and r_x).
        beta: weight of the KL.
        generator: of the sampling noise; None: torch's global one.

    Returns:
        The loss, and {"reconstruction", "kl"}, scalars.

    Breaks when: float32, no guard: loss is Inf from logvar near 86 (sum over cells and latents).

    Source: Kingma & Welling 2014, eq. 10; Lopez et al. 2018 for the negative binomial.
    """
    if form not in FORMS:
        raise ValueError(f"form: expected {' or '.join(FORMS)}; got {form!r}")
    x = guards.counts(x)
    mu_z, logvar_z = model.encoder(x, tissue)
    logvar_z = guards.logvar(logvar_z)
    z = sample_z(mu_z, guards.sample_logvar(logvar_z), generator)
    if form == "stable":
        log_mu, log_r = model.decoder.logs(z, tissue, library, guards.log_r)
        log_p = nb_log_likelihood_from_logs(x, log_mu, log_r)
        kl = kl_standard_normal(mu_z, guards.kl_logvar(logvar_z))
    else:
        mu_x, r_x = model.decoder(z, tissue, library, guards.decoder_r)
        log_p = nb_log_likelihood_guide(x, guards.logs(mu_x), guards.r(r_x), eps=0.0)
        kl = kl_standard_normal_guide(mu_z, guards.kl_logvar(logvar_z))
    reconstruction, kl = -log_p.sum(-1).mean(), kl.mean()
    return reconstruction + beta * kl, {"reconstruction": reconstruction, "kl": kl}
