"""Sums of losses: does adding to a running total cut the gradients? (guide, 1.1)"""

from collections.abc import Callable

import torch
from torch import Tensor

from labkit.claims.entry import Ruling, claim, truth
from labkit.claims.subjects import error_of, name, normal

Join = Callable[[Tensor, Tensor], Tensor]
Sum = Callable[[list[Tensor]], Tensor]


def running(total: Tensor, term: Tensor) -> Tensor:
    """result = result + compute(x)."""
    return total + term


def stacked(terms: list[Tensor]) -> Tensor:
    """The guide's repair."""
    return torch.stack(terms).sum()


def added(terms: list[Tensor], join: Join = running) -> Tensor:
    """The guide's broken form."""
    total = torch.zeros((), dtype=terms[0].dtype)
    for term in terms:
        total = join(total, term)
    return total


def terms_of(w: Tensor, count: int = 8) -> list[Tensor]:
    """One loss for each of some batches, all of the same parameter."""
    return [(w * normal(len(w), seed=seed)).sum().square() for seed in range(count)]


@claim(
    "G01",
    chinese="循环累加张量时，只有最后一次操作保留梯度",
    where="1.1 accumulation, symptom",
    english="When tensors are added up in a loop, only the last operation keeps its gradient.",
    verdict="false",
)
def only_the_last_term_keeps_its_gradient(join: Join = running) -> Ruling:
    """Compare the gradient of a running total with those of the whole sum and of the last term."""
    w = torch.ones(5, requires_grad=True)
    terms = terms_of(w)
    got, whole, last = (
        torch.autograd.grad(loss, w, retain_graph=True)[0]
        for loss in (added(terms, join), stacked(terms), terms[-1])
    )
    return truth(torch.allclose(got, last)), (
        f"The running total of 8 terms has a gradient of length {got.norm():.2f}; the whole sum "
        f"has {whole.norm():.2f}, the last term alone {last.norm():.2f}."
    )


@claim(
    "G02",
    chinese="`result = result + ...` 创建新张量，旧的计算图被detach",
    where="1.1 accumulation, cause",
    verdict="false",
    english="result = result + ... makes a new tensor and detaches the old graph.",
)
def adding_detaches_the_old_graph(join: Join = running) -> Ruling:
    """Walk back from the total and count the additions up to the first leaf."""
    start = torch.tensor(0.0, requires_grad=True)
    total, count = start, 8
    for term in terms_of(torch.ones(5, requires_grad=True), count):
        total = join(total, term)
    node, additions = total.grad_fn, 0
    while node is not None and "Add" in node.name():
        node, additions = node.next_functions[0][0], additions + 1
    reached = node is not None and getattr(node, "variable", None) is start
    leaf = torch.tensor(0.0, requires_grad=True)
    in_place = error_of(lambda: leaf.add_(1.0))
    return truth(not (reached and additions == count)), (
        f"Walking back from the total passes {additions} additions and "
        f"{'reaches' if reached else 'does not reach'} the first leaf; what does fail is += on a "
        f"leaf that requires a gradient ({in_place or 'no error'})."
    )


@claim(
    "G03",
    chinese="torch.stack(chunks).sum()  # 所有块的梯度都保留",
    where="1.1 accumulation, repair",
    verdict="holds with a condition",
    english="Collecting chunks and torch.stack(chunks).sum() keeps the gradients of all.",
)
def stacking_keeps_all_gradients(total: Sum = stacked, dtype=torch.float16) -> Ruling:
    """The gradients of a stacked sum; then chunks of unequal shape, and a long sum in a dtype."""
    w = torch.ones(5, requires_grad=True)
    got = torch.autograd.grad(total(terms_of(w)), w)[0]
    alone = sum(torch.autograd.grad(term, w)[0] for term in terms_of(w))
    kept = torch.allclose(got, alone)
    unequal = error_of(lambda: total([torch.ones(2), torch.ones(3)]))
    losses = [torch.tensor(630.0, dtype=dtype)] * 200  # a loss of the lab's VAE, in nats
    finite = [n for n in range(1, len(losses) + 1) if total(losses[:n]).isfinite()]
    as_written = kept and not unequal and len(finite) == len(losses)
    return truth(as_written, sometimes=kept), (
        f"The gradient {'equals' if kept else 'is not'} the sum of the terms' own gradients, but "
        f"chunks of unequal shape raise {unequal or 'nothing'}, and losses of 630 in {name(dtype)} "
        f"have a finite sum up to {max(finite)} terms."
    )


@claim(
    "G04",
    chinese="E-distance，梯度完整性修复",
    where="references; 1.1, edistance.py",
    english="Stacking instead of adding repaired the gradients of the chunked energy distance.",
    verdict="false",
)
def stacking_repaired_the_energy_distance(join: Join = running) -> Ruling:
    """The cross term in 6 chunks of 16 rows, its chunks added up one by one."""
    x, y = normal(96, 4).requires_grad_(), normal(64, 4, seed=1)
    chunks = [torch.cdist(part, y).sum() for part in x.split(16)]
    by_adding, by_stacking = (
        torch.autograd.grad(loss, x, retain_graph=True)[0]
        for loss in (added(chunks, join), stacked(chunks))
    )
    rows = int((by_adding != 0).any(1).sum())
    apart = float((by_adding - by_stacking).abs().max())
    return truth(as_written=rows < len(x)), (
        f"With chunks added up, {rows} of {len(x)} rows get a gradient, at most {apart:.1g} away "
        "from that of stacked chunks: there was nothing to repair."
    )
