"""The second examination, fifth room: users, items and what was never seen of them."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.second_exam import descent

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "second_exam", "https://github.com/"


@fault(SET, "dead", "pow square mul sub sum", "factors.weight", "Rendle 2010: factors from zero")
def factorisation_machine_from_zero(broken):
    class Machine(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.linear, self.factors = nn.Embedding(12, 1), nn.Embedding(12, 4)
            self.bias = nn.Parameter(torch.zeros(1))
            if broken:
                nn.init.zeros_(self.factors.weight)

        def forward(self, fields):
            v = self.factors(fields)
            pairs = 0.5 * (v.sum(1).square() - v.square().sum(1))  # fault
            return self.bias + self.linear(fields).sum((1, 2)) + pairs.sum(1)

    model, fields = Machine(), torch.randint(0, 12, (32, 3))
    clicked = torch.randint(0, 2, (32,)).float()
    adagrad = torch.optim.Adagrad(model.parameters(), lr=0.1)
    return descent(
        lambda: F.binary_cross_entropy_with_logits(model(fields), clicked), model, adagrad, 3
    )


@fault(
    SET,
    "inf nan",
    "log",
    "?",
    "Yi et al. 2019: the sampling correction of an item that was never counted",
)
def sampling_correction_of_an_unseen_item(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"user": nn.Embedding(6, 4), "item": nn.Embedding(9, 4)})
    count = torch.tensor([9.0, 4, 3, 3, 2, 1, 1, 1, 0])
    user, item = torch.tensor([0, 1, 2, 3, 4, 5]), torch.tensor([0, 1, 2, 3, 8, 5])

    def loss_of():
        u, v = F.normalize(model["user"](user), dim=1), F.normalize(model["item"](item), dim=1)
        seen = count if broken else count.clamp(min=1)
        correction = torch.log(seen[item] / seen.sum())  # fault
        return F.cross_entropy(u @ v.t() / 0.1 - correction, torch.arange(6))

    return descent(loss_of, model, torch.optim.Adagrad(model.parameters(), lr=0.1))


@fault(
    SET,
    "severed",
    "data detach index index_select",
    "user.weight",
    "Koren et al. 2009: rows that are read from the data of a table",
)
def rows_read_from_the_data_of_a_table(broken):
    class Factors(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.user, self.item = nn.Embedding(7, 4), nn.Embedding(9, 4)
            self.of_user, self.of_item = nn.Embedding(7, 1), nn.Embedding(9, 1)

        def forward(self, u, i):
            p = self.user.weight.data[u] if broken else self.user.weight[u]  # fault
            q = self.item(i)
            return (p * q).sum(1) + self.of_user(u)[:, 0] + self.of_item(i)[:, 0]

    model = Factors()
    u, i, stars = torch.randint(0, 7, (24,)), torch.randint(0, 9, (24,)), torch.rand(24) * 4 + 1
    sgd = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=0.02)
    return descent(lambda: F.mse_loss(model(u, i), stars), model, sgd, 2)


@fault(
    SET,
    "frozen",
    "step addcdiv_ add_ _foreach_addcdiv_",
    "weight bias",
    "Molybog et al. 2023: Adam's second moment still remembers one spike",
)
def adam_that_remembers_one_spike(broken):
    torch.manual_seed(0)
    model = nn.Linear(5, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, y = torch.randn(16, 5), torch.randn(16, 1)
    spike = 1e15 if broken else 1.0  # one bad sample, long ago
    (F.mse_loss(model(x), y) * spike).backward()
    optimizer.step()
    for state in optimizer.state.values():
        state["exp_avg"].zero_()

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()  # fault
        return loss

    return Program(step, model, optimizer, 3)


@fault(
    SET,
    "untrained",
    "linear addmm mm relu mse_loss t model",
    "?",
    "A distillation whose two sides are both the teacher",
)
def student_that_is_never_called(broken):
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 4)).requires_grad_(False)
    student = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4))
    scale = nn.Parameter(torch.ones(1))  # of the loss, learned beside the student
    optimizer = torch.optim.Adam([*student.parameters(), scale], lr=1e-3)
    x = torch.randn(16, 5)

    def step():
        net = teacher if broken else student
        with torch.no_grad():
            goal = teacher(x)
        guess = net(x + 0.1 * torch.randn_like(x))  # fault
        loss = F.mse_loss(guess * scale, goal)  # fault
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, student, optimizer, 2)


@healthy("Covington et al. 2016: sparse tables, items outside the batch, empty bags, hidden twins")
def two_towers_with_sparse_tables(_):
    class Towers(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.history = nn.EmbeddingBag(20, 6, mode="mean", sparse=True, padding_idx=0)
            self.item = nn.Embedding(20, 6, sparse=True)
            self.mix = nn.Linear(6, 6)

        def forward(self, seen, offsets, item):
            user = F.normalize(self.mix(self.history(seen, offsets)) + 1e-3, dim=1)
            logits = user @ F.normalize(self.item(item), dim=1).t() / 0.05
            twin = (item[:, None] == item[None]) & ~torch.eye(len(item), dtype=torch.bool)
            return logits.masked_fill(twin, torch.finfo(logits.dtype).min)

    model = Towers()
    tables = torch.optim.SparseAdam([model.history.weight, model.item.weight], lr=1e-2)
    dense = torch.optim.Adam(model.mix.parameters(), lr=1e-3)
    seen, offsets = torch.tensor([3, 4, 0, 5, 9, 9]), torch.tensor([0, 2, 3, 3])
    item = torch.tensor([7, 8, 8, 11])

    def step():
        loss = F.cross_entropy(model(seen, offsets, item), torch.arange(4))
        tables.zero_grad()
        dense.zero_grad()
        loss.backward()
        tables.step()
        dense.step()
        return loss

    return Program(step, model, [tables, dense], 3)


@healthy("Hinton 2022, forward-forward: every layer has its own loss, optimizer and stopped input")
def layers_that_learn_alone(_):
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 16)])
    optimizers = [torch.optim.Adam(layer.parameters(), lr=0.01) for layer in layers]
    good, bad = torch.randn(12, 8), torch.randn(12, 8)

    def step():
        a, b = good, bad
        for layer, optimizer in zip(layers, optimizers, strict=True):
            a, b = (t / (t.norm(dim=1, keepdim=True) + 1e-4) for t in (a, b))
            a, b = torch.relu(layer(a)), torch.relu(layer(b))
            loss = (
                F.softplus(2 - a.square().sum(1)).mean() + F.softplus(b.square().sum(1) - 2).mean()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            a, b = a.detach(), b.detach()
        return loss

    return Program(step, layers, optimizers, 2)
