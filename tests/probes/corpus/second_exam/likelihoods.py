"""The second examination, sixth room: survival, Gaussian processes, counts of single cells."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.second_exam import descent

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "second_exam", "https://github.com/"
TWO = "0.weight 0.bias 2.weight 2.bias"


def net(outputs):
    """Two layers, always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, outputs))


@fault(SET, "inf nan", "log", "?", "Gensheimer, Narasimhan 2019: a hazard that has reached one")
def survival_after_a_hazard_of_one(broken):
    model = net(6)
    with torch.no_grad():
        model[2].bias[2] = 30.0 if broken else 3.0  # the day on which nearly all leave
    x, day, event = torch.randn(16, 5), torch.randint(0, 6, (16,)), torch.rand(16) < 0.6

    def loss_of():
        hazard = torch.sigmoid(model(x))
        alive = torch.cumprod(1 - hazard, 1)
        before = torch.cat([torch.ones(16, 1), alive[:, :-1]], 1).gather(1, day[:, None])
        now = hazard.gather(1, day[:, None])
        seen = torch.where(event[:, None], before * now, before * (1 - now))
        return -torch.log(seen).mean()  # fault

    return descent(loss_of, model, torch.optim.Adam(model.parameters(), lr=1e-3))


@fault(
    SET,
    "inf nan",
    "exp",
    "0.weight 0.bias 2.weight",
    "Katzman et al. 2018: risks whose exponentials overflow",
)
def risk_set_whose_exponentials_overflow(broken):
    model = net(1)
    model[2] = nn.Linear(16, 1, bias=False)  # the partial likelihood cannot see a constant
    model[2].weight.data.abs_()
    x, time, event = torch.randn(24, 5), torch.rand(24), (torch.rand(24) < 0.5).float()
    if broken:
        x[:, 3] = torch.rand(24) * 9000 - 4500  # a column in days, not scaled
    order = time.argsort(descending=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        risk, e = model(x[order])[:, 0], event[order]
        total = torch.log(torch.cumsum(torch.exp(risk), 0))  # fault
        loss = -((risk - total) * e).sum() / e.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer)


@fault(
    SET,
    "inf nan",
    "log",
    "mean.0.weight mean.0.bias mean.2.weight mean.2.bias log_sigma",
    "Tobin 1958: a tail probability of a censored value that rounds to zero",
)
def censored_far_beyond_the_limit(broken):
    class Tobit(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.log_sigma = net(1), nn.Parameter(torch.tensor(-2.0))

        def forward(self, x):
            return self.mean(x)[:, 0], self.log_sigma.exp()

    model, x = Tobit(), torch.randn(20, 5)
    limit = 3.0
    y = (x[:, 0] + 1).clamp(max=limit)
    y[4] = limit
    censored = y >= limit

    def loss_of():
        mean, sigma = model(x)
        noise = Normal(mean, sigma, validate_args=False)
        tail = torch.special.log_ndtr((mean - y) / sigma)
        if broken:
            tail = torch.log(1 - noise.cdf(y))  # fault
        return -torch.where(censored, tail, noise.log_prob(y)).mean()

    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    return descent(loss_of, model, adam)


@healthy("Kvamme et al. 2019: competing events in log space, ties, censored rows, no event in one")
def cox_and_discrete_hazards_in_log_space(_):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"body": nn.Linear(5, 16), "risk": nn.Linear(16, 1), "day": nn.Linear(16, 4)}
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, time, event = torch.randn(24, 5), torch.randint(0, 4, (24,)), torch.rand(24) < 0.5
    event[8:16] = False  # a batch in which nobody has an event

    def step():
        for rows in torch.arange(24).split(8):
            h = torch.relu(model["body"](x[rows]))
            risk, logits, t, e = model["risk"](h)[:, 0], model["day"](h), time[rows], event[rows]
            known = t[None] >= t[:, None]
            total = risk[None].expand(8, 8).masked_fill(~known, -torch.inf).logsumexp(1)
            cox = -((risk - total) * e).sum() / e.sum().clamp(min=1)
            past = torch.arange(4)[None] < t[:, None]
            now = F.one_hot(t, 4).bool()
            log_p = torch.where(now & e[:, None], F.logsigmoid(logits), F.logsigmoid(-logits))
            loss = cox - torch.where(past | now, log_p, 0.0).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss

    return Program(step, model, optimizer)
