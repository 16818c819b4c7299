"""Where most failures start: 64 real cells, and the trained model with one bias shifted."""

from functools import cache

import torch

from labkit.cells.data import Cells, load_pbmc
from labkit.models.vae import NBVAE
from labkit.training.train import trained_vae


@cache
def batch(dtype: torch.dtype = torch.float32) -> Cells:
    """The first 64 real cells that may be trained on. The first call loads: not in a trace."""
    return load_pbmc().train[:64].to(dtype)


def shifted(bias: str, shift: float, dtype: torch.dtype = torch.float32) -> NBVAE:
    """A fresh copy of the trained model, one bias shifted: all that comes out of its layer."""
    model = trained_vae()
    with torch.no_grad():
        model.get_parameter(bias).add_(shift)
    return model.to(dtype)
