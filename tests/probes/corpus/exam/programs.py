"""An examination: whole small training programs of vision and language, one fault in each.

Written by an examiner who had not read the tracer.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "exam", "https://github.com/"


class Attention(nn.Module):
    """Causal self-attention; `forbid` writes the mask into the scores."""

    def __init__(self, width, heads, forbid):
        super().__init__()
        self.heads, self.forbid = heads, forbid
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (
            part.view(b, t, self.heads, c // self.heads).transpose(1, 2)
            for part in self.qkv(x).split(c, 2)
        )
        scores = self.forbid(q @ k.transpose(-2, -1) / math.sqrt(c // self.heads))
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, c))


class GPT(nn.Module):
    """A decoder with tied embeddings."""

    def __init__(self, forbid, vocabulary=11, width=8, layers=2, context=6):
        super().__init__()
        torch.manual_seed(0)
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers + 1))
        self.attention = nn.ModuleList(Attention(width, 2, forbid) for _ in range(layers))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width))
            for _ in range(layers)
        )

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for i, (attention, mlp) in enumerate(zip(self.attention, self.mlp, strict=True)):
            x = x + attention(self.norms[2 * i](x))
            x = x + mlp(self.norms[2 * i + 1](x))
        return self.norms[-1](x) @ self.wte.weight.t()


def by_filling(scores):
    """The usual mask."""
    seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    return scores.masked_fill(~seen, float("-inf"))


def language_model(model, optimizer, steps=1):
    """Next-token training on one batch."""
    tokens = torch.randint(0, 11, (3, 7), generator=torch.Generator().manual_seed(3))

    def step():
        optimizer.zero_grad(set_to_none=True)
        logits = model(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return Program(step, model, optimizer, steps)


EVERY_GPT = " ".join(name for name, _ in GPT(by_filling).named_parameters())


@fault(SET, "nan", "mul", EVERY_GPT, GH + "cerebroai/reformers/issues/3")
def causal_mask_made_by_a_product(broken):
    def by_product(scores):
        seen = torch.ones(scores.shape[-2:]).tril()
        return scores + (1 - seen) * float("-inf")  # fault

    model = GPT(by_product if broken else by_filling)
    return language_model(model, torch.optim.AdamW(model.parameters(), lr=1e-3))


@fault(
    SET,
    "nan",
    "div",
    EVERY_GPT,
    GH + "microsoft/dion/pull/24",
)
def orthogonal_updates_of_a_zero_gradient(broken):
    class Muon(torch.optim.Optimizer):
        def __init__(self, parameters, lr):
            super().__init__(parameters, {"lr": lr})

        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    u = p.grad
                    if u.ndim == 2:
                        size = u.norm()
                        u = u / (size if broken else size.clamp(min=1e-7))  # fault
                        for _ in range(3):
                            u = 1.5 * u - 0.5 * u @ u.t() @ u
                    p.add_(u, alpha=-group["lr"])

    model = GPT(by_filling)
    for attention in model.attention:
        nn.init.zeros_(attention.proj.weight)
    return language_model(model, Muon(model.parameters(), 0.01), 2)


@fault(
    SET,
    "dead",
    "relu threshold_backward clamp_min",
    "weigh.0.weight weigh.1.weight",
    GH + "lucidrains/deep-cross-attention/issues/2",
)
def vision_transformer_with_weights_behind_a_relu(broken):
    class ViT(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.patch = nn.Conv2d(1, 8, 2, stride=2)
            self.position = nn.Parameter(torch.randn(1, 9, 8) * 0.02)
            layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, bias=False)
            self.blocks = nn.ModuleList(copy.deepcopy(layer) for _ in range(2))
            self.weigh = nn.ModuleList(nn.Linear(8, i + 1, bias=False) for i in range(2))
            for weigh in self.weigh:
                nn.init.zeros_(weigh.weight)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            states = [self.patch(x).flatten(2).transpose(1, 2) + self.position]
            for block, weigh in zip(self.blocks, self.weigh, strict=True):
                share = weigh(states[-1])
                share = torch.relu(share) if broken else F.softplus(share)  # fault
                mixed = (torch.stack(states, -1) * share[:, :, None]).sum(-1)
                states.append(block(states[-1] + mixed))
            return self.head(states[-1].mean(1))

    model, x, y = ViT(), torch.randn(4, 1, 6, 6), torch.tensor([0, 1, 2, 1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y, label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "nan",
    "div",
    "down.weight down.bias middle.weight middle.bias up.weight up.bias",
    GH + "kohya-ss/sd-scripts/pull/934",
)
def diffusion_weights_at_zero_terminal_snr(broken):
    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.down, self.middle = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.up = nn.Conv2d(8, 1, 3, padding=1)

        def forward(self, x, t):
            time = (t.float() / 10)[:, None, None, None].expand_as(x)
            wide = F.silu(self.down(torch.cat([x, time], 1)))
            deep = F.silu(self.middle(F.avg_pool2d(wide, 2)))
            return self.up(torch.cat([wide, F.interpolate(deep, scale_factor=2)], 1))

    model = UNet()
    kept = torch.linspace(1, 0, 11)[1:].square()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, noise = torch.rand(4, 1, 8, 8), torch.randn(4, 1, 8, 8)
    t = torch.tensor([0, 3, 6, 9])

    def step():
        optimizer.zero_grad()
        a, s = kept[t].sqrt()[:, None, None, None], (1 - kept[t]).sqrt()[:, None, None, None]
        error = model(a * x + s * noise, t) - (a * noise - s * x)
        snr = kept[t] / (1 - kept[t])
        weight = snr.clamp(max=5.0) / (snr if broken else snr + 1)  # fault
        loss = (error.square().mean((1, 2, 3)) * weight).mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer)


@fault(SET, "dead", "clamp clamp_max minimum", "logit_scale", GH + "openai/CLIP/issues/46")
def contrastive_temperature_beyond_its_clamp(broken):
    class CLIP(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.image = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4))
            self.text = nn.EmbeddingBag(9, 4)
            self.logit_scale = nn.Parameter(torch.tensor(4.7 if broken else math.log(1 / 0.07)))

        def forward(self, image, text):
            u, v = F.normalize(self.image(image), dim=1), F.normalize(self.text(text), dim=1)
            return self.logit_scale.exp().clamp(max=100) * u @ v.t()  # fault

    model = CLIP()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    image, text, y = torch.randn(5, 6), torch.randint(0, 9, (5, 3)), torch.arange(5)

    def step():
        optimizer.zero_grad()
        logits = model(image, text)
        loss = (F.cross_entropy(logits, y) + F.cross_entropy(logits.t(), y)) / 2
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)
