"""How many hours will a repair take? A training program, as somebody else would have written it.

A job is a set of parts, and each part has four measurements. The net weighs the parts of a job,
and predicts the logarithm of its hours, with a spread. A second term keeps the jobs apart.
"""

import torch
from torch import nn

STEPS = 48
BATCH = 48


def jobs(count=240, parts=6, seed=1):
    """Measurements (job, part, 4), which parts are there (job, part), and the hours (job,)."""
    noise = torch.Generator().manual_seed(seed)
    x = torch.randn(count, parts, 4, generator=noise)
    x = x * torch.tensor([1.0, 300.0, 0.05, 0.0]) + torch.tensor([0.0, 900.0, 0.0, 2.5])
    there = torch.rand(count, parts, generator=noise) < 0.6
    there[5::40] = False  # a job may have no part at all
    x[:, 1] = torch.where((torch.arange(count) % 7 == 0)[:, None], x[:, 0], x[:, 1])  # a twin
    work = (0.5 + x[..., 0].abs() + x[..., 1] / 600.0) * there
    hours = work.sum(1) * torch.exp(0.2 * torch.randn(count, generator=noise))
    return x, there, hours


class Net(nn.Module):
    """Weighs the parts of a job and predicts level and spread of its log hours."""

    def __init__(self, width=24):
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.mix = nn.Linear(width, width)
        self.query = nn.Parameter(torch.randn(width))
        self.level = nn.Linear(width + 1, 1)
        self.spread = nn.Linear(width + 1, 1)
        self.register_buffer("mean", torch.tensor([0.0, 900.0, 0.0, 2.5]))
        self.register_buffer("scale", torch.tensor([1.0, 300.0, 0.05, 0.0]))

    def measure(self, x, there):
        """Running statistics of the parts that are there."""
        kept = x[there]
        self.mean.lerp_(kept.mean(0), 0.1)
        self.scale.lerp_(kept.std(0), 0.1)

    def scaled(self, x):
        """Measurements of about size one."""
        return (x - self.mean) / (self.scale + 0.01)

    def features(self, x):
        """What the net knows of a part."""
        h = torch.tanh(self.embed(self.scaled(x)))
        return h + torch.relu(self.mix(h))

    def weights(self, h, there):
        """How much each part of a job counts; the weights of a job add up to one."""
        score = h @ self.query / h.shape[-1] ** 0.5
        score = score.masked_fill(~there, -1e4)
        return torch.softmax(score, -1)

    def forward(self, x, there):
        """Level and log spread of the log hours, and the pooled features of each job."""
        h = self.features(x)
        pooled = (self.weights(h, there).unsqueeze(-1) * h).sum(1)
        known = torch.cat([pooled, there.sum(1, keepdim=True) / 3.0], -1)
        level = self.level(known).squeeze(-1)
        log_spread = 3.0 * torch.tanh(self.spread(known).squeeze(-1) / 3.0)
        return level, log_spread, pooled


def fit(level, log_spread, hours):
    """Negative log-likelihood of the hours, a normal distribution of their logarithm."""
    target = torch.log1p(hours)
    z = (target - level) * torch.exp(-log_spread)
    return (log_spread + 0.5 * z.square()).mean()


def crowd(pooled):
    """How close the jobs are to each other, between 0 and 1."""
    difference = pooled.unsqueeze(1) - pooled.unsqueeze(0)
    distance = torch.linalg.vector_norm(difference, dim=-1)
    return torch.exp(-distance).mean()


def loss_of(net, batch):
    """The loss, and the two terms that it is made of."""
    x, there, hours = batch
    level, log_spread, pooled = net(x, there)
    terms = {"fit": fit(level, log_spread, hours), "crowd": crowd(pooled)}
    return terms["fit"] + terms["crowd"], terms


def start(seed=0):
    """A net, its optimizer, and the batches."""
    torch.manual_seed(seed)
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    batches = list(zip(*(t.split(BATCH) for t in jobs()), strict=True))
    return net, optimizer, batches


def step(net, optimizer, batch):
    """One step of training; what the log prints."""
    net.measure(batch[0], batch[1])
    optimizer.zero_grad()
    loss, terms = loss_of(net, batch)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(net.parameters(), 10.0)
    optimizer.step()
    return {"loss": loss, **terms, "norm": norm}
