"""The fourth examination, last room: written after the first run, around what it had shown."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.fourth_exam.leaves import data, net

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy


def chosen(model, x, a):
    return model(x).log_softmax(1).gather(1, a[:, None])[:, 0]


@healthy("Shao et al. 2024; huggingface trl: the loss of GRPO begins at zero and rises with the KL")
def group_relative_loss_that_begins_at_zero(_):
    policy, (x, a) = net(), data()
    reference = copy.deepcopy(policy).requires_grad_(False)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    gain = torch.randn(12)
    gain = (gain - gain.mean()) / (gain.std() + 1e-4)

    def step():
        with torch.no_grad():
            old, ref = chosen(policy, x, a), chosen(reference, x, a)
        new = chosen(policy, x, a)
        ratio = (new - old).exp()
        cost = -torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain)
        loss = (cost + 0.04 * ((ref - new).exp() - (ref - new) - 1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, policy, optimizer, 4)


@healthy("Mnih et al. 2015: the trace ends with the step that sees the first reward")
def trace_that_ends_with_the_first_reward(_):
    q, (x, a) = net(), data()
    q[2].weight.data.mul_(0.01)
    q[2].bias.data.mul_(0.01)
    target, count = copy.deepcopy(q).requires_grad_(False), [0]
    optimizer = torch.optim.Adam(q.parameters(), lr=1e-3)

    def step():
        count[0] += 1
        reward = torch.full((12,), 10.0) * (count[0] > 8) * (x[:, 0] > 0)
        wanted = reward + 0.9 * target(x.roll(1, 0)).max(1).values
        loss = F.mse_loss(q(x).gather(1, a[:, None])[:, 0], wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, q, optimizer, 9)


@healthy("Tarvainen, Valpola 2017: a teacher that starts as a copy, its loss has its own backward")
def consistency_that_begins_at_zero(_):
    model, (x, y) = net(), data()
    teacher = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[:6]), y[:6])
        loss.backward()
        (10 * F.mse_loss(model(x).softmax(1), teacher(x).softmax(1))).backward()
        optimizer.step()
        with torch.no_grad():
            for p, q in zip(teacher.parameters(), model.parameters(), strict=True):
                p.lerp_(q, 0.01)
        return loss

    return Program(step, model, optimizer, 3)


@healthy("Six outputs in their own units, each error over its variance, summed in a loop")
def outputs_in_their_own_units(_):
    torch.manual_seed(0)
    heads = nn.ModuleList([nn.Linear(8, 1) for _ in range(6)])
    model = nn.ModuleDict({"body": nn.Linear(6, 8), "heads": heads})
    optimizer, x = torch.optim.Adam(model.parameters(), lr=1e-2), data()[0]
    units = [10.0**k for k in range(6)]
    y = torch.randn(12, 6) * torch.tensor(units)

    def step():
        h, loss = torch.tanh(model["body"](x)), 0.0
        for k, head in enumerate(heads):
            loss = loss + F.mse_loss(head(h)[:, 0] * units[k], y[:, k]) / units[k] ** 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Ganin et al. 2016: the weight of the second head is a tensor that waits at zero")
def second_head_that_waits(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"body": net(out=8), "one": nn.Linear(8, 3), "two": nn.Linear(8, 2)})
    optimizer, (x, y) = torch.optim.SGD(model.parameters(), lr=0.1), data()
    epoch = torch.zeros(())

    def step():
        h = model["body"](x)
        weight = ((epoch - 5) / 10).clamp(0, 1)
        loss = F.cross_entropy(model["one"](h), y)
        loss = loss + weight * F.cross_entropy(model["two"](h), torch.arange(12) % 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        epoch.add_(1)
        return loss

    return Program(step, model, optimizer, 3)


@healthy("A net by an optimizer, and a shift of its input that is updated by hand beside it")
def shift_updated_by_hand(_):
    model, (x, y) = net(), data()
    shift = nn.Parameter(torch.zeros(6))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x + shift), y)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            shift.sub_(0.1 * shift.grad)
            shift.grad.zero_()
        return loss

    return Program(step, [model, nn.ParameterList([shift])], optimizer, 2)


@healthy("Luo et al. 2024, blocks in turn: the gradients of the other blocks are dropped")
def gradients_of_other_blocks_dropped(_):
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(6, 6) for _ in range(4)], nn.Linear(6, 3))
    optimizer, (x, y), count = torch.optim.Adam(model.parameters(), lr=1e-3), data(), [0]

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        for k, block in enumerate(model):
            if k != count[0] % 5:
                for p in block.parameters():
                    p.grad = None
        optimizer.step()
        count[0] += 1
        return loss

    return Program(step, model, optimizer, 2)


@healthy("A robust accuracy at the end of each step: the net is switched off for the attack")
def net_switched_off_for_the_attack(_):
    model, (x, y) = net(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        model.requires_grad_(True)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        model.requires_grad_(False)
        seen = x.clone().requires_grad_()
        F.cross_entropy(model(seen), y).backward()
        right = model(x + 0.1 * seen.grad.sign()).argmax(1).eq(y).float().mean()
        return loss.item(), right.item()

    return Program(step, model, optimizer, 3)


@healthy("McMahan et al. 2017: the mean of the clients is written with .data.copy_")
def mean_of_clients_written_by_data(_):
    server, (x, y) = net(), data()

    def step():
        clients = [copy.deepcopy(server) for _ in range(2)]
        for k, client in enumerate(clients):
            optimizer = torch.optim.SGD(client.parameters(), lr=0.1)
            loss = F.cross_entropy(client(x[k::2]), y[k::2])
            loss.backward()
            optimizer.step()
        own = [list(client.parameters()) for client in clients]
        for p, a, b in zip(server.parameters(), *own, strict=True):
            p.data.copy_((a.data + b.data) / 2)
        return loss

    return Program(step, server, (), 2)


@healthy("Tibshirani 1996: a soft threshold that keeps one whole layer at zero")
def layer_kept_at_zero_by_a_threshold(_):
    torch.manual_seed(0)
    extra, plain, x = nn.Linear(4, 1, bias=False), nn.Linear(4, 1), torch.randn(30, 4)
    nn.init.zeros_(extra.weight)
    y = plain(x).detach() + 0.01 * torch.randn(30, 1)
    model = nn.ModuleDict({"extra": extra, "plain": plain})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(extra(x) + plain(x), y)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            w = extra.weight
            w.copy_(w.sign() * (w.abs() - 0.1).clamp(min=0))
        return loss

    return Program(step, model, optimizer, 4)


@fault(
    "fourth_exam",
    "severed untrained",
    "no_grad cross_entropy backward cross_entropy_loss detach",
    "?",
    "Two backwards in one step: the second has no graph, and its error must not be lost",
)
def second_backward_without_a_graph(broken):
    model, (x, y) = net(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(x[:6]), y[:6]).backward()
        with torch.set_grad_enabled(not broken):
            loss = F.cross_entropy(model(x[6:]), y[6:])  # fault
        loss.backward()  # fault
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 2)
