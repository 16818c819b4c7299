"""The second examination, third room: adapters, experts, students, inner loops, low bits."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.second_exam import descent

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "second_exam", "https://github.com/"
TWO = "0.weight 0.bias 2.weight 2.bias"


class LowRank(nn.Linear):
    """A frozen layer with a low-rank branch that can be merged into it."""

    def __init__(self, inputs, outputs, rank=2):
        super().__init__(inputs, outputs)
        self.weight.requires_grad_(False)
        self.bias.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
        self.lora_b = nn.Parameter(torch.randn(outputs, rank) * 0.01)
        self.drop, self.merged = nn.Dropout(0.1), False

    def merge(self, on):
        if on != self.merged:
            self.weight.data += (1 if on else -1) * (self.lora_b @ self.lora_a).data
            self.merged = on

    def forward(self, x):
        h = F.linear(x, self.weight, self.bias)
        if self.merged:
            return h
        return h + self.drop(x) @ self.lora_a.t() @ self.lora_b.t()


class Validated(nn.Module):
    """A block with an adapter and a head; validation merges, training may unmerge."""

    def __init__(self, unmerge=True):
        super().__init__()
        torch.manual_seed(0)
        self.block, self.head, self.unmerge = LowRank(6, 8), nn.Linear(8, 3), unmerge

    def train(self, mode=True):
        super().train(mode)
        if not mode or self.unmerge:
            self.block.merge(not mode)
        return self

    def forward(self, x):
        return self.head(torch.relu(self.block(x)))


def fine_tuning(model):
    """Validation before every step of training."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    x, y = torch.randn(12, 6), torch.randint(0, 3, (12,))

    def step():
        model.eval()
        with torch.no_grad():
            (model(x).argmax(1) == y).float().mean().item()
        model.train()
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)


class StillMerged(LowRank):
    """The same adapter, whose way back is forgotten."""

    def forward(self, x):
        h = F.linear(x, self.weight, self.bias)
        return h if self.merged else h + self.drop(x) @ self.lora_a.t() @ self.lora_b.t()


@fault(
    SET,
    "severed untrained",
    "linear addmm t add_ add iadd __iadd__ data detach",
    "block.lora_a block.lora_b",
    GH + "espnet/espnet/pull/5722 and microsoft/LoRA: merged for validation, never unmerged",
)
def adapter_still_merged_in_training(broken):
    class Merged(StillMerged):
        def merge(self, on):
            if on and not self.merged:
                self.weight.data += (self.lora_b @ self.lora_a).data  # fault
            if not on and self.merged:
                self.weight.data -= (self.lora_b @ self.lora_a).data
            self.merged = on

        def forward(self, x):
            h = F.linear(x, self.weight, self.bias)  # fault
            return h if self.merged else h + self.drop(x) @ self.lora_a.t() @ self.lora_b.t()

    model = Validated(unmerge=not broken)
    model.block = Merged(6, 8)
    return fine_tuning(model)


@healthy("Hu et al. 2021: merged for each validation and taken out again, in place")
def adapter_merged_for_validation(_):
    return fine_tuning(Validated())


class Experts(nn.Module):
    """Four experts behind a router."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.router = nn.Linear(8, 4, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)) for _ in range(4)
        )
        self.head = nn.Linear(8, 3)


@fault(
    SET,
    "severed",
    "topk argmax indices",
    "router.weight",
    "Shazeer et al. 2017: the experts are chosen, and their gates are left out of the sum",
)
def router_whose_gates_are_left_out(broken):
    class Mixture(Experts):
        def forward(self, x):
            gates, chosen = self.router(x).softmax(-1).topk(2)  # fault
            out = torch.zeros_like(x)
            for e, expert in enumerate(self.experts):
                token, place = (chosen == e).nonzero(as_tuple=True)
                weight = 0.5 if broken else gates[token, place, None]
                out = out.index_add(0, token, weight * expert(x[token]))
            return self.head(x + out)

    model, x, y = Mixture(), torch.randn(32, 8), torch.randint(0, 3, (32,))
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    return descent(lambda: F.cross_entropy(model(x), y), model, adam, 2)


@healthy("Fedus et al. 2021: a capacity, tokens that are dropped, a balancing loss, an idle expert")
def switch_layer_with_a_capacity(_):
    class Switch(Experts):
        def forward(self, x):
            noisy = self.router(x * (1 + 0.01 * (torch.rand_like(x) - 0.5)))
            full = torch.tensor([False, False, False, True])  # switched off in this layer
            probability = noisy.masked_fill(full, -torch.inf).softmax(-1)
            gate, chosen = probability.max(-1)
            one = F.one_hot(chosen, 4)
            rank = (one.cumsum(0) * one).sum(-1)
            kept, out = rank <= 6, torch.zeros_like(x)
            for e, expert in enumerate(self.experts[:3]):
                token = ((chosen == e) & kept).nonzero()[:, 0]
                out[token] = gate[token, None] * expert(x[token])
            self.balance = 4 * (one.float().mean(0) * probability.mean(0)).sum()
            return self.head(x + out)

    model, x, y = Switch(), torch.randn(32, 8), torch.randint(0, 3, (32,))
    model.experts[3].requires_grad_(False)
    adam = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    return descent(lambda: F.cross_entropy(model(x), y) + 0.01 * model.balance, model, adam, 3)
