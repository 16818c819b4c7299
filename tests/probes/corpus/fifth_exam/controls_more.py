"""The fifth examination, ninth room: healthy schedules, scalers, parts that wait or are frozen."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy


@healthy("Karras et al. 2018: a new resolution is faded in from a weight of zero")
def new_resolution_faded_in(_):
    class Generator(nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.old = nn.Linear(4, 3 * 4 * 4), nn.Conv2d(3, 1, 1)
            self.block, self.new = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 1, 1)

        def forward(self, z, alpha):
            h = F.interpolate(F.leaky_relu(self.base(z).view(-1, 3, 4, 4), 0.2), scale_factor=2)
            fresh = self.new(F.leaky_relu(self.block(h), 0.2))
            return torch.tanh(alpha * fresh + (1 - alpha) * self.old(h))

    model, z, photo = Generator(), torch.randn(5, 4), torch.rand(5, 1, 8, 8) * 2 - 1
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.0, 0.99))
    seen = 0

    def step():
        nonlocal seen
        alpha = min(1.0, seen / 20)
        seen += 5
        optimizer.zero_grad()
        loss = F.mse_loss(model(z, alpha), photo)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 3)


@healthy("Loshchilov, Hutter 2017: a cosine that touches zero in mid-run and returns")
def cosine_that_touches_zero(_):
    model = nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 1))
    x, y = torch.randn(16, 5), torch.randn(16, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2)

    def step():
        optimizer.zero_grad()
        loss = F.huber_loss(model(x), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
        return loss.item()

    return Program(step, model, optimizer, 5)


@healthy("fairseq, DynamicLossScaler: an overflow halves the scale and the update is left out")
def own_scaler_that_backs_off(_):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).half()
    masters = [p.detach().clone().float() for p in model.parameters()]
    optimizer = torch.optim.Adam(masters, lr=1e-3)
    x, y = torch.randn(16, 5).half(), torch.randint(0, 3, (16,))
    scale = 2.0**22

    def step():
        nonlocal scale
        model.zero_grad()
        loss = F.cross_entropy(model(x).float(), y)
        (loss * scale).backward()
        grads = [p.grad.float() / scale for p in model.parameters()]
        if not all(bool(g.isfinite().all()) for g in grads):
            scale /= 2.0**8
            model.zero_grad()
            return loss.item()
        for master, g in zip(masters, grads, strict=True):
            master.grad = g
        optimizer.step()
        with torch.no_grad():
            for p, master in zip(model.parameters(), masters, strict=True):
                p.copy_(master)
        return loss.item()

    return Program(step, model, optimizer, 3)


@healthy("torch parametrize: a symmetric weight, positive scales, and both cached for a while")
def symmetric_weights_by_a_parametrization(_):
    class Symmetric(nn.Module):
        def forward(self, w):
            return w.triu() + w.triu(1).T

    class Positive(nn.Module):
        def forward(self, w):
            return F.softplus(w)

    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 2))
    parametrize.register_parametrization(model[0], "weight", Symmetric())
    parametrize.register_parametrization(model[2], "weight", Positive())
    x, y = torch.randn(3, 8, 6), torch.randint(0, 2, (3, 8))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step():
        optimizer.zero_grad()
        with parametrize.cached():
            loss = sum(F.cross_entropy(model(a), b) for a, b in zip(x, y, strict=True))
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 3)


@healthy("Zaken et al. 2022, BitFit: only the biases and the head are tuned")
def only_the_biases_are_tuned(_):
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.1), 2)
    model = nn.ModuleDict({"encoder": encoder, "head": nn.Linear(8, 3)})
    for name, p in encoder.named_parameters():
        p.requires_grad = "bias" in name
    tuned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(tuned, lr=1e-3, weight_decay=0.0)
    x, y = torch.randn(6, 9, 8), torch.randint(0, 3, (9,))

    def step():
        model.train()
        loss = F.cross_entropy(model["head"](encoder(x).mean(0)), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            right = (model["head"](encoder(x).mean(0)).argmax(-1) == y).float().mean()
        return {"loss": loss.detach(), "accuracy": right}

    return Program(step, model, optimizer, 3)


@healthy("Cross-validation: each fold has a model and an optimizer of its own")
def folds_with_a_model_each(_):
    x, y = torch.randn(20, 4), torch.randn(20, 1)
    folds, scores = torch.arange(20).chunk(4), []

    def step():
        held = folds[len(scores) % 4]
        kept = torch.tensor([i for i in range(20) if i not in held])
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x[kept]), y[kept])
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            scores.append(F.mse_loss(model(x[held]), y[held]).item())
        return loss

    return Program(step, None, (), 2)


@healthy("Guo et al. 2017: a temperature fitted on the stored logits of a finished network")
def temperature_fitted_on_stored_logits(_):
    class Scaled(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net, self.temperature = net, nn.Parameter(torch.tensor(1.5))

        def forward(self, x):
            return self.net(x) / self.temperature

    model = Scaled(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)))
    x, y = torch.randn(30, 5), torch.randint(0, 3, (30,))
    model.net.eval()
    with torch.no_grad():
        logits = torch.cat([model.net(part) for part in x.split(10)])
    optimizer = torch.optim.LBFGS([model.temperature], lr=0.01, max_iter=8)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(logits / model.temperature, y)
        loss.backward()
        return loss

    return Program(lambda: optimizer.step(closure), model, optimizer, 1)


@healthy("Zhang et al. 2019, Fixup: the last layer of every block and the head start at zero")
def fixup_blocks_with_zero_ends(_):
    class Block(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.one, self.two = nn.Linear(d, d, bias=False), nn.Linear(d, d, bias=False)
            self.shift, self.scale = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.ones(1))
            nn.init.normal_(self.one.weight, std=(2 / d) ** 0.5 * 3**-0.5)
            nn.init.zeros_(self.two.weight)

        def forward(self, x):
            return x + self.scale * self.two(F.relu(self.one(x + self.shift)))

    model = nn.Sequential(nn.Linear(5, 8), *[Block(8) for _ in range(3)], nn.Linear(8, 3))
    nn.init.zeros_(model[-1].weight)
    nn.init.zeros_(model[-1].bias)
    x, y = torch.randn(16, 5), torch.randint(0, 3, (16,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 5)
