"""The fourth examination, sixth room: memories, caches, masks and small groups."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.fourth_exam.built import learn
from tests.probes.corpus.fourth_exam.leaves import data, net

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy


@healthy("Wu et al. 2018: a bank with one row for each sample, rows mixed with the new ones")
def bank_with_a_row_for_each_sample(_):
    class Bank(nn.Module):
        def __init__(self, n, dim):
            super().__init__()
            self.register_buffer("rows", F.normalize(torch.randn(n, dim), dim=1))

        def forward(self, z, index):
            out = z @ self.rows.clone().t() / 0.2  # the product keeps what it was made from
            with torch.no_grad():
                mixed = self.rows.index_select(0, index) * 0.5 + z * 0.5
                self.rows.index_copy_(0, index, F.normalize(mixed, dim=1))
            return out

    body, (x, _y) = net(out=4), data()
    model = nn.ModuleDict({"body": body, "bank": Bank(12, 4)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def step():
        index = torch.randperm(12)[:6]
        z = F.normalize(body(x[index]), dim=1)
        loss = F.cross_entropy(model["bank"](z, index), index)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)


@healthy("Dhariwal et al. 2020: a codebook of averages, dead codes begun again at live features")
def dead_codes_begun_again(_):
    class Codes(nn.Module):
        def __init__(self, k, dim):
            super().__init__()
            self.register_buffer("codes", torch.randn(k, dim) * 3)
            self.register_buffer("total", self.codes.clone())
            self.register_buffer("used", torch.ones(k))

        def forward(self, z):
            pick = torch.cdist(z, self.codes).argmin(1)
            q = F.embedding(pick, self.codes)
            if self.training:
                with torch.no_grad():
                    hot = F.one_hot(pick, len(self.codes)).float()
                    self.used.lerp_(hot.sum(0), 0.5)
                    self.total.lerp_(hot.t() @ z, 0.5)
                    fresh = z[torch.randint(0, len(z), (len(self.codes),))]
                    alive = (self.used >= 0.4)[:, None]
                    mean = self.total / self.used[:, None]
                    self.codes.copy_(torch.where(alive, mean, fresh))
                    self.total.copy_(torch.where(alive, self.total, fresh))
                    self.used.copy_(torch.where(alive[:, 0], self.used, torch.ones(())))
            return z + (q - z).detach(), F.mse_loss(z, q.detach())

    torch.manual_seed(0)
    model = nn.ModuleDict({"enc": nn.Linear(6, 3), "codes": Codes(7, 3), "dec": nn.Linear(3, 6)})
    x, optimizer = data()[0], torch.optim.Adam(model.parameters(), lr=1e-2)

    def step():
        optimizer.zero_grad()
        q, commit = model["codes"](model["enc"](x))
        loss = F.mse_loss(model["dec"](q), x) + 0.25 * commit
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 4)


@healthy("Schaul et al. 2016: a replay that learns its priorities from the live errors")
def priorities_from_the_live_errors(_):
    q, (x, a) = net(), data()
    reward, priority = torch.randn(12), torch.ones(12)
    optimizer = torch.optim.Adam(q.parameters(), lr=1e-2)

    def step():
        chance = priority**0.6 / (priority**0.6).sum()
        rows = torch.multinomial(chance, 6, replacement=True)
        weight = (12 * chance[rows]) ** -0.4
        weight = weight / weight.max()
        error = q(x[rows]).gather(1, a[rows, None])[:, 0] - reward[rows]
        loss = (weight * F.huber_loss(error, torch.zeros(6), reduction="none")).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(q.parameters(), 10)
        optimizer.step()
        priority[rows] = error.detach().abs() + 1e-5
        return loss

    return Program(step, q, optimizer, 4)


@healthy("Dai et al. 2019: hidden states of the last segment as a memory that gets no gradient")
def states_of_the_last_segment(_):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "words": nn.Embedding(9, 8),
            "layers": nn.ModuleList(
                [nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2)]
            ),
            "norms": nn.ModuleList([nn.LayerNorm(8) for _ in range(2)]),
            "read": nn.Linear(8, 9),
        }
    )
    text = torch.randint(0, 9, (2, 25))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    state = {"at": 0, "mems": [torch.zeros(2, 4, 8) for _ in range(2)]}
    ahead = torch.ones(4, 8, dtype=torch.bool).triu(5)

    def step():
        part = text[:, state["at"] : state["at"] + 5]
        state["at"] += 4
        h, new = model["words"](part[:, :-1]), []
        for attend, norm, mem in zip(model["layers"], model["norms"], state["mems"], strict=True):
            new.append(h.detach())
            past = torch.cat([mem, h], 1)
            h = norm(h + attend(h, past, past, attn_mask=ahead, need_weights=False)[0])
        state["mems"] = new
        loss = F.cross_entropy(model["read"](h).flatten(0, 1), part[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 4)


@healthy("Keys and values written place by place into a cache that is read in the same step")
def cache_written_place_by_place(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({n: nn.Linear(6, 6, bias=n != "k") for n in ("q", "k", "v")})
    model["read"] = nn.Linear(6, 3)
    x, y = torch.randn(4, 5, 6), torch.randint(0, 3, (4, 5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def step():
        keys, values = torch.zeros(4, 5, 6), torch.zeros(4, 5, 6)
        outs = []
        for t in range(5):
            keys, values = keys.clone(), values.clone()
            keys[:, t], values[:, t] = model["k"](x[:, t]), model["v"](x[:, t])
            scores = (keys @ model["q"](x[:, t])[..., None])[..., 0] / 6**0.5
            scores[:, t + 1 :] = float("-inf")
            outs.append((scores.softmax(1)[..., None] * values).sum(1))
        loss = F.cross_entropy(model["read"](torch.stack(outs, 1)).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Su et al. 2021: positions turned as complex numbers, half precision cast up and back")
def positions_turned_as_complex_numbers(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({n: nn.Linear(8, 8, bias=False) for n in ("q", "k", "v")})
    model["read"] = nn.Linear(8, 3)
    turn = torch.outer(torch.arange(6.0), 10000 ** (-torch.arange(0, 4, 2) / 4.0))
    turn = torch.polar(torch.ones_like(turn), turn)[:, None]
    x, y = torch.randn(3, 6, 8), torch.randint(0, 3, (3, 6))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def rotate(z):
        pairs = torch.view_as_complex(z.float().reshape(*z.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * turn).flatten(3).type_as(z)

    def step():
        optimizer.zero_grad()
        q, k, v = (model[n](x).view(3, 6, 2, 4) for n in ("q", "k", "v"))
        q, k = rotate(q), rotate(k)
        parts = (t.transpose(1, 2) for t in (q, k, v))
        out = F.scaled_dot_product_attention(*parts, is_causal=True)
        loss = F.cross_entropy(
            model["read"](out.transpose(1, 2).flatten(2)).flatten(0, 1), y.flatten()
        )
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Schuett et al. 2017: distances spread over Gaussians, most of which underflow to zero")
def distances_spread_over_gaussians(_):
    torch.manual_seed(0)
    places, kinds = torch.rand(5, 3) * 6, torch.tensor([0, 1, 1, 2, 0])
    energy = torch.tensor(1.5)
    model = nn.ModuleDict(
        {
            "kinds": nn.Embedding(3, 8),
            "filter": nn.Sequential(nn.Linear(30, 8), nn.Softplus(), nn.Linear(8, 8)),
            "read": nn.Sequential(nn.Linear(8, 8), nn.Softplus(), nn.Linear(8, 1)),
        }
    )
    optimizer, marks = torch.optim.Adam(model.parameters(), lr=1e-3), torch.linspace(0, 30, 30)
    i, j = torch.tensor([(a, b) for a in range(5) for b in range(5) if a != b]).t()

    def step():
        r = places.clone().requires_grad_()
        d = (r[i] - r[j]).norm(dim=1)
        w = model["filter"](torch.exp(-10.0 * (d[:, None] - marks) ** 2))
        h = model["kinds"](kinds)
        h = h + torch.zeros_like(h).index_add(0, i, h[j] * w)
        e = model["read"](h).sum()
        force = -torch.autograd.grad(e, r, create_graph=True)[0]
        loss = (e - energy) ** 2 + 0.1 * force.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)


@healthy("Wu, He 2018: groups of one channel over four pixels, a last norm that starts at zero")
def groups_of_one_channel(_):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(4, 4, 3, padding=1, bias=False)
            self.b = nn.Conv2d(4, 4, 3, padding=1)
            self.n, self.m = nn.GroupNorm(4, 4), nn.GroupNorm(2, 4)
            nn.init.zeros_(self.m.weight)

        def forward(self, x):
            return F.relu(x + self.m(self.b(F.relu(self.n(self.a(x))))))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), Block(), nn.Flatten(), nn.Linear(16, 3))
    x, y = torch.randn(12, 1, 6, 6), data()[1]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return Program(lambda: learn(model, x, y, optimizer), model, optimizer, 3)


@healthy("do-while loops: the graph of the next batch is built at the end of the step before")
def graph_built_at_the_end_of_the_step(_):
    model, (x, y) = net(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = {"loss": F.cross_entropy(model(x), y)}

    def step():
        loss = state["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rows = torch.randperm(12)[:8]
        state["loss"] = F.cross_entropy(model(x[rows]), y[rows])
        return loss.item()

    return Program(step, model, optimizer, 3)


@healthy("Scaled gradients gathered over three traced steps, a rate that warms up from zero")
def scaled_and_gathered_over_three_steps(_):
    model, (x, y) = net(), data()
    slow, fast = {"params": model[0].parameters(), "lr": 1e-3}, {"params": model[2].parameters()}
    optimizer = torch.optim.AdamW([slow, fast], lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, k / 2))
    scaler, count = torch.amp.GradScaler("cpu", init_scale=2.0**12), [0]

    def step():
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x[count[0] % 3 :: 3])
        loss = F.cross_entropy(out.float(), y[count[0] % 3 :: 3]) / 3
        scaler.scale(loss).backward()
        count[0] += 1
        if count[0] % 3 == 0:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return Program(step, model, optimizer, 9)


@healthy(
    "Engstrom et al. 2020: returns divided by a running spread, kept in buffers, values clipped"
)
def returns_divided_by_a_running_spread(_):
    torch.manual_seed(0)
    body, value = nn.Sequential(nn.Linear(6, 8), nn.Tanh()), nn.Linear(8, 1)
    model = nn.ModuleDict({"body": body, "policy": nn.Linear(8, 3), "value": value})
    model.register_buffer("mean", torch.zeros(()))
    model.register_buffer("var", torch.ones(()))
    model.register_buffer("count", torch.tensor(1e-4))
    optimizer, (x, a) = torch.optim.Adam(model.parameters(), lr=3e-3, eps=1e-5), data()

    def step():
        gains = torch.randn(12).cumsum(0) * 5
        with torch.no_grad():
            total = model.count + 12
            model.mean += (gains.mean() - model.mean) * 12 / total
            model.var.copy_((model.var * model.count + gains.var() * 12) / total)
            model.count.copy_(total)
            old_value = model["value"](model["body"](x))[:, 0]
            old = model["policy"](model["body"](x)).log_softmax(1).gather(1, a[:, None])[:, 0]
        wanted = (gains / (model.var.sqrt() + 1e-8)).clamp(-10, 10)
        for _ in range(3):
            h = model["body"](x)
            v = model["value"](h)[:, 0]
            clipped = old_value + (v - old_value).clamp(-0.2, 0.2)
            worst = torch.max((v - wanted) ** 2, (clipped - wanted) ** 2).mean()
            ratio = (model["policy"](h).log_softmax(1).gather(1, a[:, None])[:, 0] - old).exp()
            gain = wanted - old_value
            gain = (gain - gain.mean()) / (gain.std() + 1e-8)
            actor = -torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
            loss = actor + 0.5 * worst
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)
