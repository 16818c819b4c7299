"""The fifth examination, seventh room: signs, bins, caps and pools that let nothing through."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET = "fifth_exam"


@fault(
    SET,
    "dead",
    "sign SignBackward0",
    "net.0.weight net.0.bias net.2.weight net.2.bias",
    "Deep hashing: the codes are signs, and sign has no slope",
)
def hash_codes_by_sign(broken):
    class Hash(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5))
            self.classes = nn.Linear(5, 4)

        def forward(self, x):
            h = self.net(x)
            code = torch.sign(h)  # fault
            if not broken:
                code = torch.tanh(h) + (code - torch.tanh(h)).detach()
            return self.classes(code), code

    model, x, y = Hash(), torch.randn(20, 8), torch.randint(0, 4, (20,))
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        logits, code = model(x)
        balance = code.mean(0).square().mean()
        loss = F.cross_entropy(logits, y) + 0.1 * balance
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "severed",
    "bucketize one_hot",
    "price.weight price.bias",
    "A learned feature cut into bins: torch.bucketize returns whole numbers",
)
def bins_by_bucketize(broken):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.price, self.table = nn.Linear(3, 1), nn.Embedding(6, 5)
            self.register_buffer("edges", torch.linspace(-1, 1, 5))
            self.out = nn.Linear(5, 1)

        def forward(self, x):
            value = self.price(x).squeeze(-1)
            if broken:
                bin_of = torch.bucketize(value, self.edges)  # fault
                h = self.table(bin_of)
            else:
                centres = torch.linspace(-1.25, 1.25, 6)
                h = (-8 * (value[:, None] - centres).square()).softmax(-1) @ self.table.weight
            return self.out(F.gelu(h))

    model, x, y = Net(), torch.randn(24, 3), torch.randn(24, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)


@fault(
    SET,
    "dead",
    "tanh",
    "?",
    "Gemma, soft caps of logits: tanh is flat far beyond the cap",
)
def soft_cap_far_beyond_its_cap(broken):
    class LM(nn.Module):
        def __init__(self, cap=30.0):
            super().__init__()
            self.embed, self.mix, self.cap = nn.Embedding(12, 16), nn.Linear(16, 16), cap

        def forward(self, tokens):
            h = self.embed(tokens)
            h = h + F.silu(self.mix(h))
            logits = F.linear(h, self.embed.weight)
            if broken:
                logits = logits * 16**4  # the scale of the embedding, applied twice
            return self.cap * torch.tanh(logits / self.cap)  # fault

    model, tokens = LM(), torch.randint(0, 12, (3, 6))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step():
        logits = model(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "dead",
    "max amax mul MaxBackward0 AmaxBackward0 MulBackward0",
    "word.weight encoder.weight encoder.bias head.weight",
    "A pool over time whose padding is zero, above every feature",
)
def maximum_that_picks_the_padding(broken):
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.word, self.encoder = nn.Embedding(10, 6), nn.Linear(6, 8)
            self.head = nn.Linear(8, 2)

        def forward(self, words, mask):
            h = F.logsigmoid(self.encoder(self.word(words)))  # every feature is below zero
            if broken:
                h = h * mask.unsqueeze(-1)  # fault
            else:
                h = h.masked_fill(~mask.bool().unsqueeze(-1), -1e4)
            return self.head(h.max(1).values)  # fault

    model, y = Classifier(), torch.randint(0, 2, (5,))
    words = torch.randint(0, 10, (5, 7))
    mask = (torch.arange(7) < torch.tensor([[6], [4], [5], [3], [6]])).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(words, mask), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "dead",
    "cross_entropy log_softmax cross_entropy_loss mm matmul div mul logsumexp",
    "image.weight text.weight",
    "A contrastive loss over minibatches that hold one pair each",
)
def contrast_in_a_batch_of_one(broken):
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.image = nn.Linear(7, 4, bias=False)
            self.text = nn.Linear(5, 4, bias=False)

        def forward(self, a, b):
            u, v = F.normalize(self.image(a), dim=-1), F.normalize(self.text(b), dim=-1)
            return u @ v.T / 0.07

    model = Pair()
    size = 1 if broken else 4  # one pair on each device, and nothing is gathered
    images, texts = torch.randn(12, 7), torch.randn(12, 5)
    batches = iter(zip(images.split(size), texts.split(size), strict=True))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step():
        logits = model(*next(batches))
        target = torch.arange(len(logits))
        loss = F.cross_entropy(logits, target)  # fault
        loss = (loss + F.cross_entropy(logits.T, target)) / 2  # fault
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 3)


@fault(
    SET,
    "dead",
    "hardtanh relu6 clamp HardtanhBackward0",
    "0.weight 0.bias",
    "MobileNet on pixels from 0 to 255: the first ReLU6 is full everywhere",
)
def pixels_too_bright_for_relu6(broken):
    relu6 = nn.ReLU6()
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), relu6, nn.Conv2d(6, 8, 3), nn.Flatten(), nn.Linear(72, 2)
    )
    with torch.no_grad():
        model[0].weight.abs_()  # edge filters are rare; these all answer to brightness
    pixels = 60.0 + 190 * torch.rand(4, 3, 11, 11)
    x, y = pixels if broken else pixels / 255, torch.tensor([0, 1, 1, 0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def step():
        h = model[0](x)
        h = F.relu6(h)  # fault
        loss = F.cross_entropy(model[2:](h), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)
