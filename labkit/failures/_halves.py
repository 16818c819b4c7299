"""The two halves of the VAE, each a module of one tensor, so that one function can run either."""

import torch
from torch import Tensor, nn

from labkit.cells.data import Cells, load_pbmc
from labkit.models.vae import NBVAE, embed
from labkit.training.train import trained_vae


class Encode(nn.Module):
    """The first half: counts (cell, gene) to mean and log-variance, side by side."""

    def __init__(self, model: NBVAE, cells: Cells):
        super().__init__()
        self.encoder, self.norm, self.tissue = model.encoder, model.norm, cells.tissue

    def forward(self, x: Tensor) -> Tensor:
        mu, logvar = self.encoder(x.to(self.tissue.dtype), self.tissue)
        return torch.cat([self.norm(mu), logvar], -1)


class Decode(nn.Module):
    """The second half: latent state (cell, latent) to log mu and log r, side by side."""

    def __init__(self, model: NBVAE, cells: Cells):
        super().__init__()
        self.decoder, self.tissue, self.library = model.decoder, cells.tissue, cells.library

    def forward(self, z: Tensor) -> Tensor:
        z = z.to(self.tissue.dtype)
        return torch.cat(self.decoder(z, self.tissue, self.library, as_logs=True), -1)


def learners(model: NBVAE, learns: str) -> dict[str, nn.Parameter]:
    """The parameters of the half that learns, by name; the norm belongs to the encoder."""
    halves = {"decoder": ("decoder",), "encoder": ("encoder", "norm")}
    wanted = halves.get(learns, ("encoder", "norm", "decoder"))
    return {n: p for n, p in model.named_parameters() if n.partition(".")[0] in wanted}


def trained_halves(norm: str) -> NBVAE:
    """The trained model. A norm that is on undoes itself in eval mode, so that nothing changes."""
    model = trained_vae()
    model.norm = nn.Identity()
    if norm == "on":
        mu = embed(model, load_pbmc().train)
        model.norm = made = nn.BatchNorm1d(mu.shape[1])
        variance, mean = torch.var_mean(mu, 0)
        made.running_mean.copy_(mean)
        made.running_var.copy_(variance)
        with torch.no_grad():
            made.weight.copy_((variance + made.eps).sqrt())
            made.bias.copy_(mean)
    return model
