"""The examination, tenth room: depth, rounding, skipped steps, draws at the edge."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.exam.mechanisms import batch, classified, small
from tests.probes.corpus.exam.science import trained

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "exam", "https://github.com/"


@fault(
    SET,
    "frozen",
    "step add_ _foreach_add_ sub_",
    "?",  # the two norms do not move at all; of other parameters most entries do not
    "Zamirai et al. 2020: weights of one in bfloat16 and steps below their rounding",
)
def norms_of_one_in_bfloat16(broken):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.mix = nn.LayerNorm(8, bias=False), nn.Linear(8, 8, bias=False)

        def forward(self, h):
            return h + torch.tanh(self.mix(self.norm(h)))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8, bias=False), Block(), Block(), nn.Linear(8, 3))
    dtype = torch.bfloat16 if broken else torch.float32
    model.to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = batch()

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x.to(dtype)).float(), y)
        loss.backward()
        optimizer.step()  # fault
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "vanishing",
    "sigmoid sigmoid_ sigmoid_backward",
    "?",
    "Glorot, Bengio 2010: many logistic layers",
)
def deep_logistic_network(broken):
    act = torch.sigmoid if broken else F.silu

    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(14))
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
            gain = 1.0 if broken else 1.8
            for layer in self.layers:
                nn.init.xavier_normal_(layer.weight, gain)

        def forward(self, x):
            h = act(self.first(x))
            for layer in self.layers:
                h = act(layer(h))  # fault
            return self.last(h)

    model = Tower()
    return classified(model, torch.optim.SGD(model.parameters(), lr=0.1), 2)


@fault(
    SET,
    "exploding",
    "add mul mm addmm linear relu",
    "?",
    "Zhang, Dauphin, Ma 2019: residual branches without a norm or a scale",
)
def residual_tower_without_a_norm(broken):
    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 3)
            self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(40))
            for layer in self.layers:
                nn.init.kaiming_normal_(layer.weight)
            self.scale = 1.0 if broken else 40**-0.5

        def forward(self, x):
            h = self.first(x)
            for layer in self.layers:
                h = h + self.scale * torch.relu(layer(h))  # fault
            return self.last(h)

    model = Tower()
    return classified(model, torch.optim.SGD(model.parameters(), lr=1e-6), 1)


@fault(
    SET,
    "nan",
    "div",
    "0.weight 0.bias 2.weight 2.bias",
    "A step that is skipped for its NaN, while the NaN stays in the gradients",
)
def skipped_step_that_keeps_its_gradients(broken):
    model, (x, y) = small(), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    weight = torch.ones(12)
    weight[3:6] = 0.0  # a minibatch of which every sample is left out

    def step():
        for rows in torch.arange(12).split(3):
            w = weight[rows]
            each = F.cross_entropy(model(x[rows]), y[rows], reduction="none")
            loss = (each * w).sum() / w.sum()  # fault
            if broken:
                loss.backward()
                if not torch.isfinite(loss):
                    continue
            else:
                if not torch.isfinite(loss):
                    continue
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return loss

    return Program(step, model, optimizer, 1)


@fault(
    SET,
    "severed",
    "embedding_renorm_ embedding_renorm embedding",
    "?",
    "torch.nn.Embedding, note on max_norm: the table is renormed in place after it was used",
)
def table_renormed_after_it_was_used(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"words": nn.Embedding(9, 6, max_norm=1.0), "mix": nn.Linear(6, 6, False)}
    )
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    tokens = torch.randint(0, 9, (5, 3))

    def step():
        optimizer.zero_grad()
        table = model["words"].weight if broken else model["words"].weight.clone()
        keys = torch.tanh(table @ model["mix"].weight.t())
        h = model["words"](tokens).mean(1)  # fault
        loss = F.cross_entropy(h @ keys.t(), tokens[:, 0])
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 1)


@fault(SET, "nan", "div div_", "?", "Huang et al. 2016: a drop rate that grows linearly up to one")
def stochastic_depth_up_to_a_rate_of_one(broken):
    class Block(nn.Module):
        def __init__(self, rate):
            super().__init__()
            self.keep, self.net = 1 - rate, nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8))

        def forward(self, h):
            branch = F.gelu(self.net(h))
            kept = torch.empty(len(h), 1).bernoulli_(self.keep)
            return h + branch * (kept / self.keep)  # fault

    torch.manual_seed(0)
    rates = torch.linspace(0, 1.0 if broken else 0.3, 4)
    model = nn.Sequential(nn.Linear(6, 8), *(Block(rate) for rate in rates), nn.Linear(8, 3))
    return classified(model, torch.optim.AdamW(model.parameters(), lr=1e-3), 1)


@fault(
    SET,
    "inf nan",
    "xlogy log log1p",
    "?",
    "Chou et al. 2017: a beta policy and an action that was clipped to the edge",
)
def beta_policy_at_the_edge_of_its_range(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    obs, advantage = torch.randn(6, 4), torch.randn(6)
    action = (0.5 + 0.4 * torch.randn(6)).clamp(0, 1)
    action[2] = 1.0
    if not broken:
        action = action.clamp(1e-4, 1 - 1e-4)

    def loss_of():
        a, b = (1 + F.softplus(model(obs))).unbind(1)
        policy = torch.distributions.Beta(a, b)
        return -(policy.log_prob(action) * advantage).mean()  # fault

    return trained(model, loss_of)


@healthy("A minibatch whose loss is NaN is left out before any backward; the others are learned")
def bad_minibatch_that_is_left_out(_):
    model, (x, y) = small(), batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    weight = torch.ones(12)
    weight[3:6] = 0.0
    kept = []

    def step():
        for rows in torch.arange(12).split(3):
            w = weight[rows]
            optimizer.zero_grad()
            each = F.cross_entropy(model(x[rows]), y[rows], reduction="none")
            loss = (each * w).sum() / w.sum()
            if not bool(loss.isfinite()):
                continue
            loss.backward()
            optimizer.step()
            kept.append(loss.item())
        return sum(kept) / len(kept)

    return Program(step, model, optimizer, 2)
