"""The second examination, eighth room: faults that are far from where they are felt."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical
from torch.func import functional_call, stack_module_state, vmap

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "second_exam", "https://github.com/"
TWO = "0.weight 0.bias 2.weight 2.bias"


def net(outputs, inputs=4):
    """Two layers, always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, outputs))


def members():
    torch.manual_seed(0)
    return nn.ModuleList(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1)) for _ in range(3))


@fault(
    SET,
    "severed frozen untrained",
    "stack detach stack_module_state construct_stacked_leaf requires_grad_ step __init__ Adam",
    " ".join(n for n, _ in members().named_parameters()),
    "torch.func, ensembling: the stacked weights are new leaves, the optimizer holds the old ones",
    building=True,
)
def ensemble_stacked_away_from_its_members(broken):
    models, x, y = members(), torch.randn(16, 4), torch.randn(16, 1)
    params, buffers = stack_module_state(models)  # fault
    if not broken:
        params = dict.fromkeys(params)
    optimizer = torch.optim.Adam(models.parameters(), lr=1e-3)  # fault

    def one(p, b):
        return functional_call(models[0], (p, b), (x,))

    def step():
        weights = params
        if not broken:
            each = [dict(m.named_parameters()) for m in models]
            weights = {n: torch.stack([m[n] for m in each]) for n in params}
        loss = F.mse_loss(vmap(one)(weights, buffers), y.expand(3, -1, -1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, models, optimizer, 2)


@healthy("torch.func, ensembling: the stacked weights are trained, each member draws its own rows")
def ensemble_trained_as_a_stack(_):
    models, x, y = members(), torch.randn(16, 4), torch.randn(16, 1)
    params, buffers = stack_module_state(models)
    optimizer = torch.optim.Adam(params.values(), lr=1e-3)

    def one(p, b, rows):
        return F.mse_loss(functional_call(models[0], (p, b), (x[rows],)), y[rows])

    def step():
        rows = torch.randint(0, 16, (3, 8))
        loss = vmap(one)(params, buffers, rows).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, None, optimizer, 2)


@fault(
    SET,
    "vanishing dead",
    "logsumexp sub log_softmax _log_softmax softmax",
    "policy.weight policy.bias",
    "Ahmed et al. 2019: a policy that has become sure has no gradient left to explore with",
)
def policy_that_has_become_sure(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"policy": nn.Linear(4, 2), "value": nn.Linear(4, 1)})
    with torch.no_grad():
        model["policy"].bias.copy_(torch.tensor([70.0, 0.0]) if broken else torch.zeros(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    obs = torch.randn(20, 4)

    def step():
        policy = Categorical(logits=model["policy"](obs))  # fault
        action = policy.sample()
        returns = 1.0 - action.float() + 0.1 * obs[:, 0]
        value = model["value"](obs)[:, 0]
        gain = (policy.log_prob(action) * (returns - value.detach())).mean()  # fault
        loss = F.mse_loss(value, returns) - gain
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "inf nan exploding",
    "sub mul pow grad add",
    "?",
    "Du, Mordatch 2019: a Langevin chain whose steps are too long for a quartic energy",
)
def langevin_chain_that_runs_away(broken):
    torch.manual_seed(0)
    energy = nn.ModuleDict({"net": net(1, 2)})
    energy["net"][2] = nn.Linear(16, 1, bias=False)  # energies have no zero
    energy.stiff = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam(energy.parameters(), lr=1e-4)
    data, rate = torch.randn(16, 2), 1.0 if broken else 0.01

    def value(x):
        return energy["net"](x)[:, 0] + (energy.stiff.square() * x.pow(4)).sum(1)  # fault

    def step():
        x = torch.randn(16, 2)
        for _ in range(8):
            x = x.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(value(x).sum(), x)
            x = x - rate * slope + (2 * rate) ** 0.5 * torch.randn_like(x)  # fault
        loss = (value(data) - value(x.detach())).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, energy, optimizer)


@fault(
    SET,
    "nan",
    "div div_ copy_",
    "?",
    "van den Oord et al. 2017, appendix: the moving average of a code that nobody has chosen",
)
def code_averaged_over_nobody(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"encode": nn.Linear(5, 3), "decode": nn.Linear(3, 5)})
    book = torch.randn(6, 3)
    book[5] = 50.0
    size, total = torch.zeros(6), torch.zeros(6, 3)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    x = torch.randn(24, 5)

    def step():
        z = model["encode"](x)
        code = torch.cdist(z.detach(), book).argmin(1)
        q = book[code]
        with torch.no_grad():
            one = F.one_hot(code, 6).float()
            size.lerp_(one.sum(0), 0.1)
            total.lerp_(one.t() @ z, 0.1)
            smooth = size if broken else (size + 1e-5) / (size.sum() + 6e-5) * size.sum()
            book.copy_(total / smooth[:, None])  # fault
        loss = F.mse_loss(model["decode"](z + (q - z).detach()), x) + 0.25 * F.mse_loss(z, q)
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss

    return Program(step, model, adam, 3)
