"""The NBVAE under the guide's names: encoder, decoder, sampling and the ELBO.

Letters: `x` counts (cell, gene), `z` latent state (cell, latent), `mu_z` and `logvar_z` mean and
log-variance of q(z | x), `mu_x` expected count, `r_x` inverse dispersion, `h` hidden units.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from labkit.cells.data import Cells
from labkit.models.guards import REPAIRED, Guards
from labkit.models.likelihood import (
    kl_standard_normal,
    kl_standard_normal_guide,
    nb_log_likelihood_from_logs,
    nb_log_likelihood_guide,
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
    """Latent state and tissue to the negative binomial's parameters, each (cell, gene)."""

    def __init__(self, n_genes: int, latent_dim: int, n_tissues: int, hidden: int) -> None:
        super().__init__()
        self.latent_dim, self.n_tissues = latent_dim, n_tissues
        self.hidden = nn.Linear(latent_dim + n_tissues, hidden)
        self.fc_mu = nn.Linear(hidden, n_genes)
        self.fc_r = nn.Linear(hidden, n_genes)
        self.register_buffer("reference_library", torch.ones(()))

    def forward(
        self, z: Tensor, tissue: Tensor, library: Tensor | None = None, as_logs: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return (mu_x, r_x), or their logarithms: these neither underflow nor overflow.

        `library` is (cell,); None: every cell has the reference size that training found.
        """
        check_shape("z", z, ("cell", self.latent_dim))
        check_shape("tissue", tissue, (len(z), self.n_tissues))
        h = F.relu(self.hidden(torch.cat([z, tissue], dim=-1)))
        log_mu, log_r = self.fc_mu(h), self.fc_r(h)
        if library is not None:
            check_shape("library", library, (len(z),))
            log_mu = log_mu + (library / self.reference_library).log().unsqueeze(-1)
        return (log_mu, log_r) if as_logs else (log_mu.exp(), log_r.exp())


class NBVAE(nn.Module):
    """Negative binomial VAE, conditioned on tissue; `seed` decides the initial weights."""

    def __init__(
        self, n_genes: int, latent_dim: int, n_tissues: int, hidden: int = 128, seed: int = 0
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # the global generator stays as it was
            torch.manual_seed(seed)
            self.encoder = Encoder(n_genes, latent_dim, n_tissues, hidden)
            self.decoder = DecoderNB(n_genes, latent_dim, n_tissues, hidden)

    @classmethod
    def for_cells(cls, cells: Cells, latent_dim: int = 8, hidden: int = 128, seed: int = 0):
        """A model of the cells' sizes whose decoder starts at each gene's mean rate."""
        model = cls(cells.counts.shape[1], latent_dim, cells.tissue.shape[1], hidden, seed)
        reference = cells.library.median()
        mean = (cells.counts.sum(0) + 0.5) / cells.library.sum() * reference
        with torch.no_grad():
            model.decoder.reference_library.copy_(reference)
            model.decoder.fc_mu.bias.copy_(mean.log())
        return model


def sample_z(mu: Tensor, logvar: Tensor, generator: Generator | None = None) -> Tensor:
    """Draw z = mu + std * noise, std = exp(logvar / 2); every dtype gets the same float32 noise.

    Breaks when: logvar > 177.45 in float32 (22.19 in float16): std is Inf; z follows.
    """
    noise = torch.randn(mu.shape, generator=generator, device=mu.device).to(mu.dtype)
    return mu + torch.exp(0.5 * logvar) * noise


def elbo_loss(
    x: Tensor,
    tissue: Tensor,
    model: NBVAE,
    library: Tensor | None = None,
    guards: Guards = REPAIRED,
    form: str = "stable",
    beta: float = 1.0,
    generator: Generator | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Negative evidence lower bound, in nats per cell, and its two parts.

    Args:
        x: counts, shape (cell, gene).
        tissue: one-hot, shape (cell, tissue).
        library: shape (cell,); None: the decoder's reference size.
        guards: the protection points; `OFF`, `GUIDE`, `REPAIRED` or your own.
        form: `stable` (likelihood from logarithms) or `guide` (from mu_x and r_x).
        beta: weight of the KL.
        generator: of the sampling noise; None: torch's global one.

    Returns:
        The loss, and {"reconstruction", "kl"}, scalars.

    Breaks when: (trained model, 64 cells, float32, every logvar the same) `logvar` is not capped:
        bad gradients from 76.3, Inf from 83.2, where the KL summed over the cells overflows.
        `log_r` neither: bad gradients from 19.3, Inf from 23.2. `guide` form without its guards:
        bad gradients from 4.7, NaN from 5.0, where r_x overflows.

    Source: Kingma & Welling 2014, eq. 10; Lopez et al. 2018 for the negative binomial.
    """
    if form not in ("stable", "guide"):
        raise ValueError(f"form: expected 'stable' or 'guide'; got {form!r}")
    mu_z, logvar_z = model.encoder(x, tissue)
    logvar_z = guards.logvar(logvar_z)
    z = sample_z(mu_z, guards.sample_logvar(logvar_z), generator)
    x = guards.counts(x)  # where the guide has it: behind the encoder
    if form == "stable":
        log_mu, log_r = model.decoder(z, tissue, library, as_logs=True)
        log_p = nb_log_likelihood_from_logs(x, log_mu, guards.log_r(log_r))
        kl = kl_standard_normal(mu_z, guards.kl_logvar(logvar_z)).mean()
    else:
        mu_x, r_x = model.decoder(z, tissue, library)
        r_x = guards.r(guards.decoder_r(r_x))
        log_p = nb_log_likelihood_guide(x, guards.logs(mu_x), r_x, eps=0.0)
        kl = kl_standard_normal_guide(mu_z, guards.kl_logvar(logvar_z)).mean()
    reconstruction = -log_p.sum(-1).mean()
    return reconstruction + beta * kl, {"reconstruction": reconstruction, "kl": kl}


@torch.no_grad()
def embed(model: NBVAE, cells: Cells) -> Tensor:
    """Posterior means of the cells, shape (cell, latent)."""
    return model.encoder(cells.counts, cells.tissue)[0]


def check_shape(name: str, tensor: Tensor, expected: tuple[int | str, ...]) -> None:
    """Raise a ValueError unless the shape fits; a word in `expected` stands for any size."""
    got = tuple(tensor.shape)
    wanted = tuple(h if isinstance(w, str) else w for w, h in zip(expected, got, strict=False))
    if len(got) != len(expected) or wanted != got:
        raise ValueError(
            f"{name}: expected shape {str(expected).replace(chr(39), '')}, got {got}. "
            "Give one row per cell; the other sizes were fixed when the model was built."
        )
