"""The second examination, second room: two views, pairs, codes, players."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.second_exam import descent

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "second_exam", "https://github.com/"
TWO = "0.weight 0.bias 2.weight 2.bias"


def encoder(out=8):
    """Two layers, always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, out))


@fault(SET, "nan inf", "exp", TWO, "Chen et al. 2020: similarities over 0.01, exponentials by hand")
def temperature_too_cold_for_an_exponential(broken):
    model = encoder()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x = torch.randn(6, 10)
    temperature = 0.01 if broken else 0.1

    def step():
        views = torch.cat([x + 0.1 * torch.randn_like(x), x + 0.1 * torch.randn_like(x)])
        z = F.normalize(model(views), dim=1)
        weight = torch.exp(z @ z.t() / temperature)  # fault
        others = weight.sum(1) - weight.diagonal()
        pairs = torch.cat([weight.diagonal(6), weight.diagonal(-6)])
        loss = -torch.log(pairs / others).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "inf nan",
    "log",
    "scale bias image.weight text.weight",
    "Zhai et al. 2023: a sigmoid loss whose logarithm is taken by hand",
)
def sigmoid_loss_of_images_and_texts_by_hand(broken):
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.image, self.text = nn.Linear(12, 8, bias=False), nn.Linear(10, 8, bias=False)
            self.scale = nn.Parameter(torch.tensor(5.0))
            self.bias = nn.Parameter(torch.tensor(-10.0))

        def forward(self, pictures, words):
            a = F.normalize(self.image(pictures), dim=-1)
            b = F.normalize(self.text(words), dim=-1)
            return a @ b.t() * self.scale.exp() + self.bias

    model, pictures, words = Pair(), torch.randn(8, 12), torch.randn(8, 10)
    sign = 2 * torch.eye(8) - 1

    def loss_of():
        logits = model(pictures, words) * sign
        good = torch.log(torch.sigmoid(logits)) if broken else F.logsigmoid(logits)  # fault
        return -good.sum(1).mean()

    return descent(loss_of, model, torch.optim.AdamW(model.parameters(), lr=1e-3))


@fault(
    SET,
    "nan inf",
    "exp",
    "?",
    GH + "galilai-group/stable-pretraining/pull/288, codes of SwAV in half precision",
)
def codes_of_prototypes_in_half_precision(broken):
    model = nn.Sequential(encoder(), nn.Linear(8, 5, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(12, 10)

    @torch.no_grad()
    def sinkhorn(scores):
        q = torch.exp(scores / 0.05).t()  # fault
        q = q / q.sum()
        for _ in range(3):
            q = q / q.sum(1, keepdim=True) / 5
            q = q / q.sum(0, keepdim=True) / 12
        return (q * 12).t()

    def step():
        with torch.no_grad():
            model[1].weight.copy_(F.normalize(model[1].weight, dim=1))
        a = model[1](F.normalize(model[0](x + 0.1 * torch.randn_like(x)), dim=1))
        b = model[1](F.normalize(model[0](x + 0.1 * torch.randn_like(x)), dim=1))
        q = sinkhorn(b.detach().half() if broken else b.detach()).float()
        loss = -(q * F.log_softmax(a / 0.1, dim=1)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer)


@fault(
    SET,
    "wrong severed",
    "copy_ setitem __setitem__ index_put_ slice",
    TWO,
    "He et al. 2020: a queue of keys that is written before the backward of its logits",
)
def queue_written_before_the_backward(broken):
    query, key = encoder(), encoder().requires_grad_(False)
    queue = F.normalize(torch.randn(8, 12), dim=0)
    optimizer = torch.optim.SGD(query.parameters(), lr=0.03, momentum=0.9)
    x, head = torch.randn(4, 10), [0]

    def step():
        with torch.no_grad():
            for slow, fast in zip(key.parameters(), query.parameters(), strict=True):
                slow.mul_(0.999).add_(fast, alpha=0.001)
            k = F.normalize(key(x + 0.1 * torch.randn_like(x)), dim=1)
        q = F.normalize(query(x + 0.1 * torch.randn_like(x)), dim=1)
        old = queue if broken else queue.clone()
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ old], 1) / 0.07
        queue[:, head[0] : head[0] + 4] = k.t()  # fault
        head[0] = (head[0] + 4) % 12
        loss = F.cross_entropy(logits, torch.zeros(4, dtype=torch.long))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, query, optimizer)


@fault(
    SET,
    "dead",
    "exp neg sum abs",
    "kernel",
    "Salimans et al. 2016: a minibatch discrimination whose distances are far too long",
)
def minibatch_discrimination_that_underflows(broken):
    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(6, 16), nn.LeakyReLU(0.2))
            self.kernel = nn.Parameter(torch.randn(16, 4, 5) * (80.0 if broken else 0.1))
            self.score = nn.Linear(20, 1)

        def forward(self, x):
            h = self.body(x)
            m = torch.einsum("bi,ijk->bjk", h, self.kernel)
            distance = (m[None] - m[:, None]).abs().sum(-1)
            near = torch.exp(-distance).sum(0) - 1  # fault
            return self.score(torch.cat([h, near], 1))

    critic = Critic()
    real, fake = torch.randn(8, 6) * 4, torch.randn(8, 6) * 2 + 1

    def loss_of():
        return F.softplus(-critic(real)).mean() + F.softplus(critic(fake)).mean()

    adam = torch.optim.Adam(critic.parameters(), lr=2e-4, betas=(0.5, 0.999))
    return descent(loss_of, critic, adam, 2)


@fault(
    SET,
    "frozen",
    "__init__ Adam step add_param_group",
    "generator.0.weight generator.0.bias generator.2.weight generator.2.bias",
    "A line copied from the other player: both optimizers hold the critic",
    building=True,
)
def optimizer_of_the_other_player(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "generator": nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)),
            "critic": nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1)),
        }
    )
    for_critic = torch.optim.Adam(model["critic"].parameters(), lr=2e-4)
    player = model["critic"] if broken else model["generator"]
    for_generator = torch.optim.Adam(player.parameters(), lr=2e-4)  # fault
    real = torch.randn(8, 2) + 3

    def step():
        fake = model["generator"](torch.randn(8, 3))
        loss = F.softplus(-model["critic"](real)).mean()
        loss = loss + F.softplus(model["critic"](fake.detach())).mean()
        for_critic.zero_grad()
        loss.backward()
        for_critic.step()
        fooled = F.softplus(-model["critic"](fake)).mean()
        for_generator.zero_grad()
        fooled.backward()
        for_generator.step()
        return fooled

    return Program(step, model, [for_critic, for_generator], 3)


@fault(
    SET, "nan", "rsqrt mul", "?", "Karras et al. 2018: a pixel norm without epsilon, a zero code"
)
def pixel_norm_of_an_empty_code(broken):
    class PixelNorm(nn.Module):
        def forward(self, z):
            return z * torch.rsqrt((z * z).mean(1, keepdim=True) + (0 if broken else 1e-8))  # fault

    torch.manual_seed(0)
    model = nn.Sequential(PixelNorm(), nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Linear(16, 6))
    z = torch.randn(8, 4)
    z[5] = 0.0  # the mean of the latent space, shown in each grid
    critic = nn.Linear(6, 1).requires_grad_(False)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.0, 0.99))
    return descent(lambda: F.softplus(-critic(model(z))).mean(), model, adam)
