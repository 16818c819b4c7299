"""The fourth examination, eighth room: the same loops with something wrong in them."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.fourth_exam.leaves import data, net

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET = "fourth_exam"
TWO = "0.weight 0.bias 2.weight 2.bias"


@fault(
    SET,
    "severed untrained",
    "detach",
    "client.weight client.bias",
    "Gupta, Raskar 2018: split learning, the gradient never sent back to the client",
)
def gradient_never_sent_back_to_the_client(broken):
    torch.manual_seed(0)
    client, server = nn.Linear(6, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 3))
    model = nn.ModuleDict({"client": client, "server": server})
    optimizer, (x, y) = torch.optim.Adam(model.parameters(), lr=1e-2), data()

    def step():
        optimizer.zero_grad()
        h = client(x)
        sent = h.detach().requires_grad_()  # fault
        loss = F.cross_entropy(server(sent), y)
        loss.backward()
        if not broken:
            h.backward(sent.grad)
        optimizer.step()
        return loss.detach()

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "frozen",
    "copy_ sign sign_ mul",
    "0.weight 2.weight",
    "Courbariaux et al. 2015: the real weights are never put back before the update",
)
def real_weights_never_put_back(broken):
    model, (x, y) = net(), data()
    weights = [model[0].weight, model[2].weight]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step():
        saved = [w.data.clone() for w in weights]
        for w in weights:
            w.data.copy_(0.25 * w.data.sign())  # fault
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        if not broken:
            for w, real in zip(weights, saved, strict=True):
                w.data.copy_(real)
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 5)


@fault(
    SET,
    "dead",
    "zeros mm matmul mul zeros_",
    "w h",
    "discuss.pytorch.org: matrix factorisation with both factors at zero",
)
def both_factors_at_zero(broken):
    torch.manual_seed(0)
    counts = torch.rand(10, 3) @ torch.rand(3, 8)
    size = 0.0 if broken else 1.0
    w, h = nn.Parameter(size * torch.rand(10, 4)), nn.Parameter(size * torch.rand(4, 8))
    model = nn.ParameterDict({"w": w, "h": h})
    optimizer = torch.optim.SGD([w, h], lr=0.05)

    def step():
        optimizer.zero_grad()
        loss = (counts - w @ h).square().sum()  # fault
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            w.clamp_(min=0)
            h.clamp_(min=0)
        return loss

    return Program(step, model, optimizer, 3)


@fault(
    SET,
    "nan inf",
    "div mul reciprocal",
    "?",
    "Madry et al. 2018 in the L2 norm: a noise of zero is projected before its first step",
)
def noise_of_zero_projected(broken):
    model, (x, y) = net(), data()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step():
        noise = torch.zeros_like(x)
        for _ in range(3):
            far = 0.5 / noise.norm(dim=1, keepdim=True)  # fault
            if not broken:
                far = far.clamp(max=1)
            noise = (noise * far).detach().requires_grad_()  # fault
            slope = torch.autograd.grad(F.cross_entropy(model(x + noise), y), noise)[0]
            noise = noise + 0.2 * slope / (slope.norm(dim=1, keepdim=True) + 1e-12)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x + noise.detach()), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "severed untrained",
    "tensor item detach lift_fresh",
    "1.0",
    "Chen et al. 2018: norms of gradients gathered into a new tensor of numbers",
)
def norms_gathered_as_numbers(broken):
    torch.manual_seed(0)
    body, one, two = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 1)
    weigh, (x, y) = nn.Parameter(torch.tensor([1.0, 1.5])), data()
    tasks = nn.ModuleDict({"body": body, "one": one, "two": two})
    optimizer = torch.optim.Adam([*tasks.parameters(), weigh], lr=1e-2)

    def step():
        h = torch.tanh(body(x))
        losses = [F.cross_entropy(one(h), y), F.mse_loss(two(h)[:, 0], x[:, 0])]
        norms = []
        for k, cost in enumerate(losses):
            g = torch.autograd.grad(cost, body.weight, create_graph=True)[0]
            norms.append((weigh[k] * g.detach()).norm())
        norms = torch.tensor([n.item() for n in norms]) if broken else torch.stack(norms)  # fault
        balance = (norms - norms.mean().detach()).abs().sum()
        total = sum(w * v for w, v in zip(weigh.detach(), losses, strict=True))
        optimizer.zero_grad()
        (total + balance).backward()
        optimizer.step()
        return total.item()

    return Program(step, [tasks, nn.ParameterList([weigh])], optimizer, 2)


@fault(
    SET,
    "exploding inf nan",
    "step add_ add _foreach_add_ mul sub linear addmm mm mean backward square pow MulBackward0",
    "?",
    "Arjovsky et al. 2017: a critic whose weights are never clamped, and a large rate",
)
def critic_that_is_never_clamped(broken):
    torch.manual_seed(0)
    maker, critic = nn.Linear(3, 2), nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
    om = torch.optim.SGD(maker.parameters(), lr=2.0)
    oc = torch.optim.SGD(critic.parameters(), lr=2.0)

    def step():
        if not broken:
            with torch.no_grad():
                for p in critic.parameters():
                    p.clamp_(-0.1, 0.1)
        z, real = torch.randn(16, 3), torch.randn(16, 2) + 2
        critic.zero_grad()
        gap = critic(maker(z).detach()).mean() - critic(real).mean()
        gap.backward()
        oc.step()  # fault
        maker.zero_grad()
        loss = -critic(maker(z)).mean()  # fault
        loss.backward()
        om.step()  # fault
        return loss

    return Program(step, [maker, critic], [om, oc], 60)


@fault(
    SET,
    "nan",
    "layer_norm native_layer_norm masked_fill masked_fill_ mean sub",
    "?",
    "discuss.pytorch.org: padding set to -inf for a maximum, a norm put in between",
)
def norm_between_padding_and_maximum(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"body": nn.Linear(6, 8), "norm": nn.LayerNorm(8), "read": nn.Linear(8, 3)}
    )
    x, y = torch.randn(4, 5, 6), torch.tensor([0, 1, 2, 0])
    pad = torch.arange(5) >= torch.tensor([[5], [3], [2], [4]])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step():
        h = model["body"](x)
        if broken:
            h = h.masked_fill(pad[..., None], float("-inf"))  # fault
            h = model["norm"](h)  # fault
        else:
            h = model["norm"](h).masked_fill(pad[..., None], float("-inf"))
        loss = F.cross_entropy(model["read"](h.amax(1)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer)
