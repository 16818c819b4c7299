"""The third examination, first room: optimizers, rates, scalers, clipping, saved weights."""

import copy
import pickle

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "third_exam", "https://github.com/"
TWO = "0.weight 0.bias 2.weight 2.bias"


def two_layers(out=3):
    """A small network, always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, out))


def batch():
    """Inputs and classes."""
    generator = torch.Generator().manual_seed(7)
    return torch.randn(12, 6, generator=generator), torch.randint(0, 3, (12,), generator=generator)


@fault(
    SET,
    "exploding inf nan",
    "step add_ add _foreach_add_ SGD LambdaLR mul sub",
    "?",
    "torch.optim.lr_scheduler.LambdaLR: a linear decay that runs on below zero",
)
def linear_decay_that_runs_below_zero(broken):
    torch.manual_seed(0)
    model, x = nn.Linear(4, 1), torch.randn(16, 4) * 3
    y = x.sum(1, keepdim=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    last = 4 if broken else 40
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 - epoch / last)

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()  # fault
        schedule.step()  # fault
        return loss

    return Program(step, model, optimizer, 30)


@fault(SET, "nan", "sqrt sqrt_ _foreach_sqrt_ step", "weight", GH + "CanReader/FastNN/issues/12")
def centred_rmsprop_on_a_steady_gradient(broken):
    torch.manual_seed(0)
    model = nn.Linear(5, 1, bias=False)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.5, centered=broken)
    x = torch.tensor([[0.1, 0.3, 0.7, 1.1, 1.7]])

    def step():
        optimizer.zero_grad()
        loss = -model(x).mean()  # a critic's score: its slope never changes
        loss.backward()
        optimizer.step()  # fault
        return loss

    return Program(step, model, optimizer, 30)


@fault(
    SET,
    "nan inf",
    "div",
    TWO,
    "Kingma, Ba 2015: a bias correction that is counted from zero",
)
def own_adam_counted_from_zero(broken):
    class Adam:
        def __init__(self, parameters, lr=1e-2, betas=(0.9, 0.999)):
            self.parameters, self.lr = list(parameters), lr
            self.b1, self.b2 = torch.tensor(betas[0]), torch.tensor(betas[1])
            self.t = 0 if broken else 1
            self.m = [torch.zeros_like(p) for p in self.parameters]
            self.v = [torch.zeros_like(p) for p in self.parameters]

        @torch.no_grad()
        def step(self):
            for p, m, v in zip(self.parameters, self.m, self.v, strict=True):
                m.mul_(self.b1).add_((1 - self.b1) * p.grad)
                v.mul_(self.b2).add_((1 - self.b2) * p.grad**2)
                m_hat = m / (1 - self.b1**self.t)  # fault
                v_hat = v / (1 - self.b2**self.t)
                p -= self.lr * m_hat / (v_hat.sqrt() + 1e-8)
            self.t += 1

    model, (x, y) = two_layers(), batch()
    optimizer = Adam(model.parameters())

    def step():
        model.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, (), 2)


@fault(
    SET,
    "exploding inf nan",
    "scale mul step add_ add _foreach_add_ backward MulBackward0",
    "?",
    "discuss.pytorch.org: optimizer.step() called where scaler.step(optimizer) was meant",
)
def optimizer_stepped_without_its_scaler(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    x, y = torch.randn(16, 6), torch.randn(16, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.mse_loss(model(x).float(), y)
        scaler.scale(loss).backward()  # fault
        if broken:
            optimizer.step()  # fault
        else:
            scaler.step(optimizer)
            scaler.update()
        return loss.detach()

    return Program(step, model, optimizer, 4)


@fault(
    SET,
    "frozen dead severed",
    "clamp_ clamp clip_grad_value_ clamp_min_ clamp_max_ _foreach_clamp_min_ _foreach_clamp_max_",
    TWO,
    "torch.nn.utils.clip_grad_value_: a limit of zero that was meant as 'no limit'",
)
def gradients_clipped_to_values_of_zero(broken):
    model, (x, y) = two_layers(), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    limit = 0.0 if broken else 0.5

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), limit)  # fault
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "nan inf",
    "sqrt SqrtBackward0",
    "?",
    GH + "pytorch/pytorch/pull/53843, one infinite gradient and the norm of all",
)
def clipping_spreads_one_infinite_gradient(broken):
    class Gain(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.full((3,), 0.0 if broken else 0.25))

        def forward(self, x):
            return x * (1 + torch.sqrt(self.gain))  # fault

    model, (x, y) = two_layers(), batch()
    model.append(Gain())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return Program(step, model, optimizer)


@fault(
    SET,
    "frozen",
    "load_state_dict copy_ copy",
    TWO,
    "Early stopping whose best score starts as NaN: nothing is ever better",
)
def best_weights_restored_after_every_epoch(broken):
    model, (x, y) = two_layers(), batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    seen = {"best": float("nan") if broken else float("inf")}
    seen["weights"] = copy.deepcopy(model.state_dict())

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            score = F.cross_entropy(model(x), y).item()
        if score < seen["best"]:
            seen["best"], seen["weights"] = score, copy.deepcopy(model.state_dict())
        else:
            model.load_state_dict(seen["weights"])  # fault
        return loss

    return Program(step, model, optimizer, 3)


@fault(
    SET,
    "frozen",
    "step __init__ AdamW add_param_group loads",
    TWO,
    "discuss.pytorch.org: model and optimizer pickled apart; each has parameters of its own",
    building=True,
)
def optimizer_that_was_pickled_alone(broken):
    model, (x, y) = two_layers(), batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)  # fault
    if broken:
        model = pickle.loads(pickle.dumps(model))  # fault
        optimizer = pickle.loads(pickle.dumps(optimizer))  # fault
    else:
        model, optimizer = pickle.loads(pickle.dumps((model, optimizer)))

    def step():
        model.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()  # fault
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "frozen",
    "sub",
    TWO,
    "stackoverflow.com: `p = p - lr * p.grad` in a loop binds a name and updates nothing",
)
def update_that_only_binds_a_name(broken):
    model, (x, y) = two_layers(), batch()

    def step():
        model.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                if broken:
                    p = p - 0.1 * p.grad  # fault
                else:
                    p -= 0.1 * p.grad
        return loss.item()

    return Program(step, model, (), 3)
