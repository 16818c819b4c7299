"""`check_gradient_flow`: one line a parameter on its gradient."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from labkit.guide.check_tensor import check_tensor
from labkit.guide.leaves import finite, reals
from labkit.guide.lines import BAD, GOOD, LOOK, Line, Lines, printed
from labkit.guide.same_noise import SameNoise
from labkit.guide.slope import slope_ratio

NO_BACKWARD = "no backward has run: run one on a real batch first, or hand in loss="


def check_gradient_flow(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    loss: Callable[[], Tensor] | None = None,
    small: float = 1e-6,
    dead: float = 0.5,
    stale: float = 1e-3,
    slope: float | None = None,
) -> Lines:
    """Print one line for each trainable parameter: is its gradient there, finite, alive, and used?

    Changes nothing: parameters, ``.grad``, optimizer, buffers and random numbers stay.

    Args:
        model: after a backward, or with `loss`.
        optimizer: to see who is left out of it, and how far its step would really move each
            parameter (it steps once, on a copy).
        loss: computes the loss anew. Its gradient is compared with ``.grad``, or stands in for
            it where there is none yet.
        small: a gradient whose largest entry is below this share of the model's largest is
            reported as near zero. No absolute size is, so scaling the loss changes no line.
        dead: share of rows (output units) with an exactly zero gradient from which on it is told.
        stale: relative distance between ``.grad`` and the gradient of `loss` that is told.
        slope: with `loss`, also compare each gradient with a finite difference along it, and tell
            deviations above this share (0.1 is a good one). Two to ten forward passes a parameter.

    Returns:
        The printed lines; true if nothing needs a look.

    Breaks when:
        A straight-through estimator or a stop-gradient is meant: `slope` reports it.
        A bias stands before a BatchNorm, or a last layer starts at zero: the zeros are meant.
        `loss` uses re-entrant checkpoints: autograd.grad finds nothing behind them.
        The optimizer steps only with a closure (LBFGS): its step is not tried.

    The guide's original is blind where (each shown in a test):
        Inf and 1e38 pass as normal.
        Its 1e-8 is absolute and looks at the largest entry: one living unit hides 999 dead ones,
            a healthy gradient of a loss scaled by 1e-10 is flagged, and in float16 it is "== 0".
        A stale or accumulated ``.grad``, a path half cut, and a parameter that no optimizer holds
            are all normal.
        Before the first backward it reports every parameter of a healthy model.

    Source: the guide, 1.5.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    frozen = sum(not p.requires_grad for p in model.parameters())
    fresh = _fresh(model, named, loss) if loss else {}
    grads = {name: p.grad for name, p in named.items()}
    if named and not any(g is not None for g in grads.values()):
        if not loss:
            return printed([Line(LOOK, "", NO_BACKWARD)])
        grads = fresh
    most = max((_largest(g) for g in grads.values() if g is not None and finite(g)), default=0.0)
    moves = (
        _moves(optimizer, dict(zip(map(id, named.values()), grads.values(), strict=True)))
        if optimizer
        else {}
    )
    ratios = _slopes(model, named, fresh, loss) if loss and slope is not None else {}
    lines = []
    for name, p in named.items():
        faults = [
            _of_gradient(grads[name], most, small, dead),
            _of_optimizer(p, grads[name], optimizer, moves),
            _of_freshness(grads[name], fresh.get(name), stale) if loss else None,
            _of_slope(ratios.get(name), slope),
        ]
        lines.append(_line(name, grads[name], [f for f in faults if f], moves.get(id(p))))
    if frozen:
        lines.append(Line(GOOD, "", f"{frozen} more parameters are frozen (requires_grad=False)"))
    return printed(lines)


Fault = tuple[str, str]  # mark and words


def _of_gradient(grad: Tensor | None, most: float, small: float, dead: float) -> Fault | None:
    if grad is None:
        return LOOK, "no gradient: the loss does not reach it"
    if not finite(grad):
        return BAD, f"gradient {check_tensor(grad)[2:].strip()}"
    largest, rows = _largest(grad), _dead_rows(grad)
    if not largest:
        return LOOK, "the gradient is exactly zero everywhere"
    if check_tensor(grad).startswith(LOOK):
        return LOOK, f"the gradient is so large (max={largest:.2e}) that its square overflows"
    if largest < small * most:
        return LOOK, f"gradient near zero (max={largest:.2e}, {largest / most:.0e} of the largest)"
    if rows >= dead * len(grad.reshape(-1) if grad.dim() < 2 else grad):
        total = grad.numel() if grad.dim() < 2 else len(grad)
        return LOOK, f"the gradient of {rows} of {total} units is exactly zero"
    return None


def _largest(grad: Tensor) -> float:
    values = _values(grad)
    return float(values.abs().max()) if values.numel() else 0.0


def _values(grad: Tensor) -> Tensor:
    return grad.detach().coalesce().values() if grad.is_sparse else grad.detach()


def _dead_rows(grad: Tensor) -> int:
    if grad.is_sparse:  # only the rows in use are stored
        return 0
    rows = grad.detach().reshape(len(grad), -1) if grad.dim() > 1 else grad.detach().reshape(-1, 1)
    return int((rows == 0).all(1).sum())


def _of_optimizer(p: Tensor, grad: Tensor | None, optimizer, moves: dict) -> Fault | None:
    if optimizer is None:
        return None
    groups = [g for g in optimizer.param_groups if any(q is p for q in g["params"])]
    if not groups:
        return BAD, "no optimizer holds it, so it never moves"
    if float(groups[0].get("lr", 1.0)) == 0.0:
        return LOOK, "its learning rate is 0"
    still = id(p) in moves and grad is not None and finite(grad) and moves[id(p)] == 0.0
    return (LOOK, "the optimizer's step moves no bit of it") if still and _largest(grad) else None


def _moves(optimizer, grads: dict[int, Tensor | None]) -> dict[int, float]:
    """Relative length of one step of a copy of the optimizer, by id of the parameter."""
    trial = deepcopy(optimizer)
    for old, new in zip(_members(optimizer), _members(trial), strict=True):
        grad = grads.get(id(old), old.grad)
        new.grad = None if grad is None else grad.detach().clone()
    try:
        trial.step()
    except TypeError:  # wants a closure
        return {}
    pairs = zip(_members(optimizer), _members(trial), strict=True)
    return {id(old): _shift(old.detach(), new.detach()) for old, new in pairs}


def _members(optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _shift(old: Tensor, new: Tensor) -> float:
    length = float((reals(new) - reals(old)).norm())
    return length / max(float(reals(old).norm()), torch.finfo(old.dtype).tiny)


def _fresh(model, named: dict[str, Tensor], loss) -> dict[str, Tensor | None]:
    with SameNoise(model):
        value = loss()
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise ValueError(f"loss: expected a function that returns a scalar; got {value!r}")
        if not value.requires_grad:
            return dict.fromkeys(named)
        found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
    return dict(zip(named, found, strict=True))


def _of_freshness(grad: Tensor | None, fresh: Tensor | None, stale: float) -> Fault | None:
    if grad is None or fresh is None or grad is fresh or not (finite(grad) and finite(fresh)):
        return (LOOK, "stale: this loss does not reach it") if (
            grad is not None and fresh is None) else None  # fmt: skip
    old, new = reals(grad), reals(fresh)
    if (old - new).norm() <= stale * new.norm():
        return None
    ratio = float(old.norm() / new.norm()) if new.norm() else float("inf")
    return LOOK, f"stale or accumulated: .grad is {ratio:.2f} times as long as this loss's gradient"


def _slopes(model, named, fresh, loss) -> dict[str, float | None]:
    noise = SameNoise(model)

    def same() -> Tensor:
        noise.again()
        return loss()

    with noise:
        known = {name: g for name, g in fresh.items() if g is not None and finite(g)}
        return {name: slope_ratio(same, [named[name]], [g]) for name, g in known.items()}


def _of_slope(ratio: float | None, slope: float | None) -> Fault | None:
    if ratio is None or slope is None or abs(ratio - 1) <= slope:
        return None
    return LOOK, f"a finite difference gives {ratio:.2f} times its slope: part of a path is cut"


def _line(name: str, grad: Tensor | None, faults: list[Fault], move: float | None) -> Line:
    if faults:
        mark = BAD if any(mark == BAD for mark, _ in faults) else LOOK
        return Line(mark, name, "; ".join(words for _, words in faults))
    norm = torch.linalg.vector_norm(reals(grad))
    step = f", a step moves it by {move:.1e} of its length" if move is not None else ""
    return Line(GOOD, name, f"gradient normal (norm={norm:.4e}{step})")
