"""The examination, seventh room: what PyTorch's own machinery cuts, leaves behind or replaces."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "exam", "https://github.com/"
TWO_LAYERS = "0.weight 0.bias 2.weight 2.bias"


def small(out=3):
    """Two layers, always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, out))


def batch():
    """Inputs and classes."""
    generator = torch.Generator().manual_seed(7)
    return torch.randn(12, 6, generator=generator), torch.randint(0, 3, (12,), generator=generator)


def classified(model, optimizer, steps=2):
    """A program of plain classification steps."""
    x, y = batch()

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, steps)


@fault(
    SET,
    "severed",
    "checkpoint CheckpointFunction CheckpointFunctionBackward no_grad",
    "blocks.0.1.weight blocks.0.1.bias blocks.1.1.weight blocks.1.1.bias",
    GH + "huggingface/transformers/issues/21381",
)
def recomputed_blocks_behind_frozen_embeddings(broken):
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed = nn.Embedding(9, 8).requires_grad_(False)
            norm = nn.LayerNorm(8, elementwise_affine=False)
            self.blocks = nn.ModuleList(
                nn.Sequential(norm, nn.Linear(8, 8), nn.GELU()) for _ in range(2)
            )
            self.head = nn.Linear(8, 3)

        def forward(self, tokens):
            h = self.embed(tokens)
            for block in self.blocks:
                h = h + checkpoint(block, h, use_reentrant=broken)  # fault
            return self.head(h.mean(1))

    model, tokens, y = Encoder(), torch.randint(0, 9, (5, 4)), torch.tensor([0, 1, 2, 1, 0])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


BUILT = "step __init__ SGD Adam AdamW add_param_group"


@fault(
    SET,
    "frozen",
    BUILT + " load_state_dict",
    TWO_LAYERS,
    GH + "pytorch/tutorials/pull/2522",
    building=True,
)
def weights_assigned_after_the_optimizer_was_built(broken):
    saved, model = small().state_dict(), small()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)  # fault
    model.load_state_dict({k: v * 0.9 for k, v in saved.items()}, assign=broken)  # fault
    model.requires_grad_(True)
    return classified(model, optimizer)


@fault(
    SET,
    "frozen",
    BUILT + " weight_norm register_parametrization",
    "0.parametrizations.weight.original0 0.parametrizations.weight.original1",
    "torch.nn.utils.parametrizations: new parameters after the optimizer was built",
    building=True,
)
def weight_norm_after_the_optimizer_was_built(broken):
    model = small()
    if not broken:
        nn.utils.parametrizations.weight_norm(model[0])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)  # fault
    if broken:
        nn.utils.parametrizations.weight_norm(model[0])  # fault
    return classified(model, optimizer)


@fault(
    SET,
    "frozen",
    BUILT + " Linear __call__",
    "project.weight project.bias",
    GH + "LaurentMazare/ocaml-torch/issues/36",
    building=True,
)
def layer_made_at_its_first_use(broken):
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body, self.project = nn.Linear(6, 8), None

        def forward(self, x):
            h = torch.tanh(self.body(x))
            if self.project is None:
                self.project = nn.Linear(h.shape[1], 3)  # fault
            return self.project(h)

    model = Late()
    if not broken:
        model(batch()[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)  # fault
    return classified(model, optimizer)


@fault(
    SET,
    "frozen severed",
    BUILT + " state_dict detach",
    TWO_LAYERS,
    "stackoverflow.com: an optimizer that was given the values of the state dict",
    building=True,
)
def optimizer_of_the_state_dict(broken):
    model = small()
    given = list(model.state_dict().values()) if broken else model.parameters()  # fault
    optimizer = torch.optim.SGD(given, lr=0.1)  # fault
    x, y = batch()

    def step():
        model.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)
