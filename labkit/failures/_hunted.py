"""Small programs with one fault each; the line that ends in ``# fault`` is where it is born.

Each function takes whether it is broken and returns a training step and its model.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Program = tuple[Callable[[], Tensor], nn.Module]
Make = Callable[[bool], Program]


def _net(inputs: int = 4, outputs: int = 3, bias: float = 0.0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs))
    with torch.no_grad():
        model[2].bias.add_(bias)
    return model


def _rows(rows: int = 6, columns: int = 4) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(1))


def mask_on_purpose(broken: bool) -> Program:
    """Nothing is wrong: a mask of minus infinity does its work."""
    model, x = _net(), _rows()
    hidden = torch.zeros(6, 3).masked_fill(torch.arange(3) == 1, -torch.inf)

    def step() -> Tensor:
        return torch.softmax(model(x) + hidden, 1)[:, 0].square().mean()

    return step, model


def kl_overflow(broken: bool) -> Program:
    """The exponential of a log-variance of 90."""
    model, x = _net(bias=90.0), _rows()

    def step() -> Tensor:
        logvar = model(x)
        if not broken:
            logvar = logvar - 90.0
        return (logvar.exp() - logvar).mean()  # fault

    return step, model


def log_of_negative(broken: bool) -> Program:
    """The logarithm of an output that may be negative."""
    model, x = _net(), _rows()

    def step() -> Tensor:
        rate = model(x)
        if not broken:
            rate = F.softplus(rate)
        return -rate.log().mean()  # fault

    return step, model


def empty_row(broken: bool) -> Program:
    """The softmax of a row in which everything is masked."""
    model, x = _net(), _rows()
    hidden = torch.zeros(6, 3).masked_fill(torch.arange(3) == 1, -torch.inf)
    if broken:
        hidden[4] = -torch.inf

    def step() -> Tensor:
        weights = torch.softmax(model(x) + hidden, 1)  # fault
        return weights[:, 0].square().mean()

    return step, model


def distance_to_itself(broken: bool) -> Program:
    """A root at zero: a finite loss and a NaN gradient."""
    model, x = _net(), _rows()

    def step() -> Tensor:
        z = model(x)
        gap = z.unsqueeze(0) - (z.unsqueeze(1) if broken else z.detach().flip(0).unsqueeze(1) + 9)
        return gap.square().sum(-1).sqrt().mean()  # fault

    return step, model


def chosen_afterwards(broken: bool) -> Program:
    """A where that hides the value and not the gradient."""
    model, x = _net(), _rows().abs()
    x[2] = 0.0

    def step() -> Tensor:
        size = (model(x) * x.sum(1, keepdim=True)).square()
        safe = size if broken else torch.where(size > 0, size, 1.0)
        return torch.where(size > 0, safe.sqrt(), 0.0).mean()  # fault

    return step, model


class _Pair(nn.Module):
    """Returns two tensors, as an encoder or an LSTM does."""

    def __init__(self, broken: bool):
        super().__init__()
        self.net, self.broken = _net(), broken

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.net(x)
        below = h - h.amax() if self.broken else h.square() + 1.0
        return h, below.log()  # fault


class _Rate(nn.Module):
    """Returns one tensor."""

    def __init__(self, broken: bool):
        super().__init__()
        self.net, self.broken = _net(), broken

    def forward(self, x: Tensor) -> Tensor:
        h = self.net(x)
        h = h if self.broken else h.square() + 1.0
        return h.rsqrt()  # fault


def in_a_module(broken: bool) -> Program:
    """The root of a negative number, and a module that returns it."""
    model, x = _Rate(broken), _rows()

    def step() -> Tensor:
        return model(x).mean()

    return step, model


def in_a_tuple(broken: bool) -> Program:
    """The logarithm of zero in the second of two outputs."""
    model, x = _Pair(broken), _rows()

    def step() -> Tensor:
        mean, spread = model(x)
        return (mean * spread.exp()).sum() + spread.mean()

    return step, model


def masked_first(broken: bool) -> Program:
    """An infinity that a later line throws away, and behind it one that counts."""
    model, x = _net(), _rows()

    def step() -> Tensor:
        h = model(x)
        ratio = torch.where(x[:, :3] > 0, 1.0, 1.0 / torch.zeros(6, 3))
        scale = 200.0 if broken else 2.0
        return (h * scale).cosh().mean() + torch.where(ratio.isinf(), 0.0, ratio).mean()  # fault

    return step, model


def dead_clamp(broken: bool) -> Program:
    """A clamp that is flat where the model works."""
    model, x = _net(bias=20.0), _rows()

    def step() -> Tensor:
        h = model(x)
        return (h.clamp(-10, 10) if broken else h).square().mean()  # fault

    return step, model


def detached(broken: bool) -> Program:
    """A graph that is cut."""
    model, x = _net(), _rows()
    scale = nn.Parameter(torch.ones(3))
    model.register_parameter("scale", scale)

    def step() -> Tensor:
        h = model(x)
        h = h.detach() if broken else h  # fault
        return (h * scale).square().mean()

    return step, model


BORN: dict[str, Make] = {  # a bad number is born; the first one is in order
    "none": mask_on_purpose,
    "KL overflow": kl_overflow,
    "log of negative": log_of_negative,
    "empty row": empty_row,
    "distance to itself": distance_to_itself,
    "chosen afterwards": chosen_afterwards,
    "in a module": in_a_module,
    "in a tuple": in_a_tuple,
    "masked first": masked_first,
}
ALL: dict[str, Make] = {**BORN, "dead clamp": dead_clamp, "detached": detached}
INSIDE = {in_a_module: _Rate.forward, in_a_tuple: _Pair.forward}  # else it is in the step
