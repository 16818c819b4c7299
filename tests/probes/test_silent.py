"""Ordinary training programs of many kinds: the tracer must say nothing, and must not fail."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from labkit import trace
from labkit.probes.verdict import Verdict


class Sequence(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.embed, self.body = nn.Embedding(20, 8), kind(8, 8, batch_first=True)
        self.out = nn.Linear(8, 20)

    def forward(self, tokens):
        return self.out(self.body(self.embed(tokens))[0])


class Residual(nn.Module):
    """Zero-initialised last layer of each block, as in many residual nets."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
            for _ in range(3)
        )
        for block in self.blocks:
            nn.init.zeros_(block[3].weight)
            nn.init.zeros_(block[3].bias)
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def conv():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(6, 3),
    )


def tokens():
    return torch.randint(0, 20, (4, 6))


def language(model):
    data = tokens()
    return lambda: F.cross_entropy(model(data).flatten(0, 1), data.flatten())


def regression(model, width=8):
    x, y = torch.randn(16, width), torch.randn(16, 1)
    return lambda: F.mse_loss(model(x), y)


def classify(model):
    x, y = torch.randn(6, 1, 12, 12), torch.randint(0, 3, (6,))
    return lambda: F.cross_entropy(model(x), y)


def transformer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 1)
    )
    x = torch.randn(4, 5, 8)
    return model, lambda: model(x).square().mean()


def weight_normed():
    model = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)),
        nn.ELU(),
        nn.utils.parametrizations.spectral_norm(nn.Linear(8, 1)),
    )
    return model, regression(model)


def tied():
    model = Sequence(nn.GRU)
    model.out.weight = model.embed.weight
    return model, language(model)


def checkpointed(reentrant):
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    x = torch.randn(5, 8, requires_grad=reentrant)
    body = model[:2]
    return model, lambda: model[2](checkpoint(body, x, use_reentrant=reentrant)).square().mean()


def second_order():
    model = nn.Sequential(nn.Linear(3, 8), nn.Softplus(), nn.Linear(8, 1))

    def loss():
        x = torch.randn(6, 3, requires_grad=True)
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return (slope.norm(dim=1) - 1).square().mean() + model(x).mean()

    return model, loss


def mixed_precision():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    x, y = torch.randn(16, 8), torch.randn(16, 1)

    def loss():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = model(x)
        return F.mse_loss(out.float(), y)

    return model, loss


def variational():
    model = nn.ModuleDict({"enc": nn.Linear(8, 4), "dec": nn.Linear(2, 8)})
    x = torch.randn(10, 8)

    def loss():
        mu, logvar = model.enc(x).chunk(2, 1)
        posterior = torch.distributions.Normal(mu, (0.5 * logvar).exp())
        z = posterior.rsample()
        kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
        return F.mse_loss(model.dec(z), x) + 0.1 * kl.mean()

    return model, loss


def complex_weights():
    model = nn.ParameterList([torch.randn(4, 4, dtype=torch.complex64)])
    x = torch.randn(3, 4, dtype=torch.complex64)
    return model, lambda: (x @ model[0]).abs().square().mean()


def sparse_rows():
    model = nn.Embedding(10, 4, sparse=True)
    index = torch.tensor([1, 2, 5])
    return model, lambda: model(index).square().mean()


def pretrained_then_head():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    for part in model[0].parameters():
        part.requires_grad_(False)
    return model, regression(model)


def triplet():
    model = nn.Linear(8, 4)
    a, p, n = torch.randn(3, 5, 8)
    return model, lambda: F.triplet_margin_loss(model(a), model(p), model(n), margin=5.0)


def quantised():
    model = nn.ModuleDict(
        {"enc": nn.Linear(8, 4), "book": nn.Embedding(6, 4), "dec": nn.Linear(4, 8)}
    )
    x = torch.randn(10, 8)

    def loss():
        z = model.enc(x)
        index = torch.cdist(z, model.book.weight).argmin(1)
        code = model.book(index)
        straight = z + (code - z).detach()
        commitment = F.mse_loss(z, code.detach()) + F.mse_loss(code, z.detach())
        return F.mse_loss(model.dec(straight), x) + commitment

    return model, loss


def pair(build, loss):
    def make():
        model = build()
        return model, loss(model)

    return make


MODELS = {
    "mlp": pair(lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1)), regression),
    "deep_relu": pair(
        lambda: nn.Sequential(
            *(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(5)), nn.Linear(8, 1)
        ),
        regression,
    ),
    "deep_tanh": pair(
        lambda: nn.Sequential(
            *(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(6)), nn.Linear(8, 1)
        ),
        regression,
    ),
    "conv": pair(conv, classify),
    "lstm": pair(lambda: Sequence(nn.LSTM), language),
    "gru": pair(lambda: Sequence(nn.GRU), language),
    "rnn": pair(lambda: Sequence(nn.RNN), language),
    "residual": pair(Residual, regression),
    "transformer": transformer,
    "weight_norm": weight_normed,
    "tied": tied,
    "checkpoint": lambda: checkpointed(False),
    "checkpoint_reentrant": lambda: checkpointed(True),
    "second_order": second_order,
    "autocast": mixed_precision,
    "variational": variational,
    "complex": complex_weights,
    "frozen_base": pretrained_then_head,
    "triplet": triplet,
    "quantised": quantised,
}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, weight_decay=1e-4),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
}


def training(model, optimizer, loss):
    def step():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return value

    return step


def assert_silent(report):
    assert report.verdict is Verdict.HEALTHY, str(report)
    odd = [(fate.name, fate.word) for fate in report.harmed]
    assert not odd, odd


@pytest.mark.parametrize("name", MODELS)
def test_one_forward_and_backward(name):
    torch.manual_seed(0)
    model, loss = MODELS[name]()
    assert_silent(trace(loss, model=model))
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_three_training_steps(name, kind):
    torch.manual_seed(0)
    model, loss = MODELS[name]()
    optimizer = OPTIMIZERS[kind](model.parameters())
    assert_silent(trace(training(model, optimizer, loss), model, optimizer, steps=3))


@pytest.mark.parametrize("name", MODELS)
def test_without_a_model_and_in_a_block(name):
    torch.manual_seed(0)
    with trace() as tracing:
        model, loss = MODELS[name]()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        step = training(model, optimizer, loss)
        tracing.watch(model, optimizer)
        for _ in range(2):
            step()
            tracing.step()
    assert_silent(tracing.report)
    model, loss = MODELS[name]()
    assert_silent(trace(loss))


def test_lbfgs_runs_its_closure_inside():
    torch.manual_seed(0)
    model, loss = MODELS["mlp"]()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    assert_silent(trace(lambda: optimizer.step(closure), model, optimizer, steps=2))


def test_sparse_gradients():
    torch.manual_seed(0)
    model, loss = sparse_rows()
    optimizer = torch.optim.SparseAdam(model.parameters())

    def step():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return value

    assert_silent(trace(step, model, optimizer, steps=2))


def test_hand_made_update_and_moving_average():
    torch.manual_seed(0)
    model, loss = MODELS["mlp"]()
    slow = copy.deepcopy(model)

    def step():
        model.zero_grad()
        value = loss()
        value.backward()
        with torch.no_grad():
            for p, q in zip(model.parameters(), slow.parameters(), strict=True):
                p -= 0.01 * p.grad
                q.mul_(0.9).add_(p, alpha=0.1)
        return value

    assert_silent(trace(step, model, steps=3))


def test_function_transforms():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    x = torch.randn(5, 3)

    def loss(weights, row):
        return torch.func.functional_call(model, weights, (row,)).square().sum()

    def step():
        torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)
        return model(x).square().mean()

    assert_silent(trace(step, model))
