"""The fourth examination, second room: parameters computed, cut, merged and rounded."""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.fourth_exam.leaves import data, net

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy


def learn(model, x, y, optimizer):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.detach()


@healthy("He et al. 2017: channels are cut out between steps, a new optimizer for what is left")
def channels_cut_out_between_steps(_):
    model, (x, y) = net(), data()
    state = {"n": 0, "optimizer": torch.optim.Adam(model.parameters(), lr=1e-2)}

    def step():
        loss = learn(model, x, y, state["optimizer"])
        state["n"] += 1
        if state["n"] == 1:
            low, high = model[0], model[2]
            keep = low.weight.abs().sum(1).topk(5).indices.sort().values
            low.weight = nn.Parameter(low.weight[keep])
            low.bias = nn.Parameter(low.bias[keep])
            high.weight = nn.Parameter(high.weight[:, keep].clone())
            low.out_features = high.in_features = 5
            state["optimizer"] = torch.optim.Adam(model.parameters(), lr=1e-2)
        return loss

    return Program(step, model, (), 4)


@healthy("Denton et al. 2014: a layer replaced by its two factors of low rank, then fine-tuned")
def layer_replaced_by_its_factors(_):
    model, (x, y) = net(hidden=10), data()
    u, s, v = torch.linalg.svd(model[0].weight, full_matrices=False)
    down, up = nn.Linear(6, 3, bias=False), nn.Linear(3, 10)
    down.weight = nn.Parameter(s[:3].sqrt()[:, None] * v[:3])
    up.weight = nn.Parameter(u[:, :3] * s[:3].sqrt())
    up.bias = nn.Parameter(model[0].bias.clone())
    model[0] = nn.Sequential(down, up)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return Program(lambda: learn(model, x, y, optimizer), model, optimizer, 3)


@healthy("Lialin et al. 2023: adapters merged into frozen weights and begun again every few steps")
def adapters_merged_and_begun_again(_):
    class Relora(nn.Module):
        def __init__(self, base, rank=2):
            super().__init__()
            self.base = base.requires_grad_(False)
            self.a = nn.Parameter(torch.randn(rank, base.in_features) * 0.3)
            self.b = nn.Parameter(torch.zeros(base.out_features, rank))

        def forward(self, x):
            return self.base(x) + x @ self.a.t() @ self.b.t()

        @torch.no_grad()
        def merge(self):
            self.base.weight.data += self.b @ self.a
            nn.init.kaiming_uniform_(self.a, a=5**0.5)
            nn.init.zeros_(self.b)

    model, (x, y) = net(), data()
    model[0], model[2] = Relora(model[0]), Relora(model[2])
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    count = [0]

    def step():
        loss = learn(model, x, y, optimizer)
        count[0] += 1
        if count[0] % 2 == 0:
            model[0].merge()
            model[2].merge()
            optimizer.state.clear()
        return loss

    return Program(step, model, optimizer, 4)


@healthy("torch.nn.utils.fuse_conv_bn_weights: a fused convolution is trained further")
def fused_convolution_trained_further(_):
    torch.manual_seed(0)
    conv, norm = nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4)
    norm(conv(torch.randn(16, 2, 9)))
    w, b = nn.utils.fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, 1e-5, norm.weight, norm.bias
    )
    fused = nn.Conv1d(2, 4, 3)
    fused.weight, fused.bias = nn.Parameter(w), nn.Parameter(b)
    model = nn.Sequential(fused, nn.ReLU(), nn.Flatten(), nn.Linear(28, 3))
    x, y = torch.randn(12, 2, 9), data()[1]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    return Program(lambda: learn(model, x, y, optimizer), model, optimizer, 3)


@healthy("Chen et al. 2016: a wider net that computes the same, its units copied and halved")
def wider_net_that_computes_the_same(_):
    small, (x, y) = net(hidden=4), data()
    first = torch.optim.Adam(small.parameters(), lr=1e-2)
    state = {"model": small, "optimizer": first, "n": 0}
    home = nn.ModuleDict({"net": small})

    def widen(model):
        pick = torch.cat([torch.arange(4), torch.tensor([1, 3])])
        many = torch.bincount(pick, minlength=4).float()
        wide = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
        wide[0].weight.data = model[0].weight.data[pick] + 0.01 * torch.randn(6, 6)
        wide[0].bias.data = model[0].bias.data[pick]
        wide[2].weight.data = (model[2].weight.data / many)[:, pick]
        wide[2].bias.data = model[2].bias.data.clone()
        return wide

    def step():
        if state["n"] == 2:
            home["net"] = state["model"] = widen(state["model"])
            state["optimizer"] = torch.optim.Adam(home.parameters(), lr=1e-2)
        state["n"] += 1
        return learn(state["model"], x, y, state["optimizer"])

    return Program(step, home, (), 4)


@healthy("transformers resize_token_embeddings: new rows begin at the mean of the old ones, tied")
def vocabulary_that_grows(_):
    torch.manual_seed(0)
    old = nn.Embedding(8, 6)
    new = nn.Embedding(10, 6)
    new.weight.data[:8] = old.weight.data
    new.weight.data[8:] = old.weight.mean(0).detach() + 1e-3 * torch.randn(2, 6)
    head = nn.Linear(6, 10, bias=False)
    head.weight = new.weight
    model = nn.Sequential(new, nn.Linear(6, 6), nn.GELU(), head)
    tokens = torch.randint(0, 10, (6, 7))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def step():
        optimizer.zero_grad()
        out = model(tokens[:, :-1])
        loss = F.cross_entropy(out.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)


@healthy("Courbariaux et al. 2015: binary weights in both passes, the update on the real ones")
def binary_weights_with_a_real_copy(_):
    model, (x, y) = net(), data()
    weights = [m.weight for m in model if isinstance(m, nn.Linear)]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step():
        saved = [w.data.clone() for w in weights]
        for w in weights:
            w.data.copy_(w.data.sign() * w.data.abs().mean())
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        for w, real in zip(weights, saved, strict=True):
            w.data.copy_(real)
        optimizer.step()
        for w in weights:
            w.data.clamp_(-1, 1)
        return loss

    return Program(step, model, optimizer, 4)


@healthy("Frankle, Carbin 2019: pruned by size, the survivors set back to where they began")
def survivors_set_back_to_the_start(_):
    model, (x, y) = net(), data()
    start = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        learn(model, x, y, optimizer)
    for i in (0, 2):
        prune.l1_unstructured(model[i], "weight", amount=0.4)
        model[i].weight_orig.data.copy_(start[f"{i}.weight"])
        model[i].bias.data.copy_(start[f"{i}.bias"])
    again = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-4)
    return Program(lambda: learn(model, x, y, again), model, again, 3)


@healthy("Komatsuzaki et al. 2022: a trained layer copied into each expert of a mixture")
def experts_copied_from_a_dense_layer(_):
    torch.manual_seed(0)
    dense = nn.Linear(6, 6)

    class Mixture(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.stack([dense.weight.t()] * 3) + 0.01 * torch.randn(3, 6, 6))
            self.b = nn.Parameter(dense.bias.expand(3, 6).clone())
            self.router = nn.Linear(6, 3, bias=False)
            self.router.weight.data.normal_(std=0.02)

        def forward(self, x):
            gate, pick = self.router(x).softmax(1).topk(2)
            out = torch.einsum("ni,nkio->nko", x, self.w[pick]) + self.b[pick]
            return (gate[..., None] * torch.relu(out)).sum(1)

    model = nn.Sequential(Mixture(), nn.Linear(6, 3))
    (x, y), optimizer = data(), torch.optim.Adam(model.parameters(), lr=1e-2)
    return Program(lambda: learn(model, x, y, optimizer), model, optimizer, 3)


@healthy("Esser et al. 2020: steps of rounding that are learnt, begun from the weights' mean size")
def steps_of_rounding_that_are_learnt(_):
    class Rounded(nn.Linear):
        def __init__(self, i, o):
            super().__init__(i, o)
            self.size = nn.Parameter(2 * self.weight.abs().mean() / 7**0.5)

        def forward(self, x):
            g = 1 / (self.weight.numel() * 7) ** 0.5
            s = (self.size - self.size * g).detach() + self.size * g
            v = (self.weight / s).clamp(-8, 7)
            v = (v.round() - v).detach() + v
            return F.linear(x, v * s, self.bias)

    torch.manual_seed(0)
    model = nn.Sequential(Rounded(6, 8), nn.ReLU(), Rounded(8, 3))
    (x, y), optimizer = data(), torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return Program(lambda: learn(model, x, y, optimizer), model, optimizer, 3)
