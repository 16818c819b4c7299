"""Small trainings that tests watch."""

import random

import numpy as np
import torch
from torch import Tensor, nn


class Noisy(nn.Module):
    """Dropout, running means and every global generator: all that a replay must put back."""

    def __init__(self):
        super().__init__()
        self.inner, self.norm, self.drop = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3)
        self.outer = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(torch.relu(self.norm(self.inner(x))))
        return self.outer(h * random.random() + np.random.rand())


def made(seed: int = 0, kind=torch.optim.Adam, **options):
    """A model and its optimizer; every global generator is seeded."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    model = Noisy()
    return model, kind(model.parameters(), **({"lr": 1e-2} | options))


def batches(count: int, bad: int | None = None) -> list[Tensor]:
    """Batches from a generator of their own; one may hold a NaN."""
    generator = torch.Generator().manual_seed(7)
    made = [torch.randn(16, 4, generator=generator) for _ in range(count)]
    if bad is not None:
        made[bad][2, 1] = torch.nan
    return made


def copy_of(model: nn.Module, optimizer) -> list[Tensor]:
    """Parameters, buffers and optimizer state."""
    slots = [s for state in optimizer.state.values() for s in state.values()]
    tensors = [*model.parameters(), *model.buffers(), *slots]
    return [t.detach().clone() for t in tensors if isinstance(t, Tensor)]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    """To the bit; NaN equals NaN."""
    return all(
        a.isnan().equal(b.isnan()) and a.nan_to_num().equal(b.nan_to_num())
        for a, b in zip(one, other, strict=True)
    )


def generators() -> tuple:
    """A fingerprint of every global generator."""
    state = np.random.get_state(legacy=False)["state"]
    return torch.get_rng_state().tolist(), random.getstate(), state["key"].tolist(), state["pos"]
