"""The tools and pages that the guide names at its end, and the files that it quotes."""

import warnings

import torch
from torch import Tensor
from torch.autograd import detect_anomaly, gradcheck

from labkit.claims.entry import UNCHECKED, Ruling, claim, protection, truth
from labkit.claims.subjects import error_of, normal

INF = float("inf")


@claim(
    "G91",
    chinese="数值稳定性最佳实践",
    english="PyTorch's note on numerical accuracy is a guide of best practice.",
    where="references",
    verdict="holds with a condition",
)
def the_note_is_of_use(entry: float = 1e20) -> Ruling:
    """Its two main points, run here; the page itself cannot be fetched from a test.

    Source: PyTorch documentation, Numerical accuracy: batched results, extremal values.
    """
    pair = torch.tensor([entry, entry])
    overflow, wide = float(pair.norm()), float(pair.double().norm())
    A, B = normal(100, 1000), normal(1000, 100, seed=1)
    apart = float(((A @ B)[:1] - A[:1] @ B).abs().max())
    confirmed = overflow == INF and wide < INF
    # What it leaves out is what the guide is about: clamps, eps and losses are not in it.
    return truth(False, sometimes=confirmed), (
        f"What it warns of is seen here: the norm of two entries of {entry:.0e} is {overflow:g} in "
        f"float32 and {wide:.1e} in float64, and a slice of a product differs from the product of "
        f"a slice by {apart:.0e}; on clamps, eps and losses it says nothing."
    )


def reached(loss: Tensor) -> set[int]:
    """The leaves that a picture of the graph shows: those to which `grad_fn` leads."""
    leaves, stack, seen = set(), [loss.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        stack.extend(following for following, _ in node.next_functions)
    return leaves


@claim(
    "G92",
    chinese="`torchviz`: 可视化计算图",
    english="torchviz shows the graph.",
    where="references",
    verdict="holds with a condition",
)
def the_graph_shows_what_is_wrong(x: float = 15.0) -> Ruling:
    """What torchviz walks through: a detached leaf, and one behind a dead clamp."""
    w, v = torch.tensor(x, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    cut = reached(w.detach() * v)
    dead = w.clamp(-10, 10) * v
    drawn = {id(w), id(v)} <= reached(dead)
    gradient = float(torch.autograd.grad(dead, w)[0])
    severed_seen = id(w) not in cut and id(v) in cut
    return truth(severed_seen and not (drawn and gradient == 0), sometimes=severed_seen), (
        f"A detached leaf is missing from the picture, so a cut is seen; a leaf behind a clamp at "
        f"{x:g} is drawn like any other, with the gradient {gradient:g}."
    )


@claim(
    "G93",
    chinese="`torch.autograd.gradcheck`: 数值验证梯度",
    english="gradcheck verifies gradients numerically.",
    where="references",
    verdict="holds with a condition",
)
def gradcheck_verifies_gradients(dtype: torch.dtype = torch.float64) -> Ruling:
    """Right and wrong gradients in two dtypes; a dead clamp; the root at 0."""

    def passes(f, x: float, dtype: torch.dtype) -> bool:
        leaf = torch.full((3,), x, dtype=dtype, requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # float32 is warned of, and that is the point
            return gradcheck(f, leaf, raise_exception=False)

    right, single = passes(torch.exp, 0.5, dtype), passes(torch.exp, 0.5, torch.float32)
    wrong = passes(lambda x: x * x.detach(), 0.5, dtype)
    dead, root = passes(lambda x: x.clamp(-10, 10), 15.0, dtype), passes(torch.sqrt, 0.0, dtype)
    verifies = right and not wrong
    return truth(verifies and single and not dead, sometimes=verifies), (
        f"In {str(dtype).removeprefix('torch.')} a right gradient passes and a half-detached one "
        f"does not; in float32 the right one {'passes' if single else 'fails'}, a dead clamp "
        f"{'passes' if dead else 'fails'} as 0 = 0, and sqrt at 0 {'passes' if root else 'fails'}."
    )


@claim(
    "G94",
    chinese="自动检测异常",
    english="detect_anomaly detects anomalies by itself.",
    where="references",
    verdict="incomplete guard",
)
def anomaly_mode_detects_anomalies() -> Ruling:
    """A NaN that backward makes; then an Inf, a NaN loss, a NaN input, a dead clamp."""

    def silent(f, x: float) -> bool:
        leaf = torch.tensor(x, requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that it is slow, and prints the traceback
            with detect_anomaly():
                return not error_of(lambda: f(leaf).backward())

    born = silent(lambda x: (x * x).sqrt(), 0.0)
    missed = {
        "an infinite gradient": silent(torch.sqrt, 0.0),
        "a NaN loss": silent(lambda x: (x - 2).log(), 1.0),
        "a NaN input": silent(lambda x: 2 * x, torch.nan),
        "a dead clamp": silent(lambda x: x.clamp(-10, 10), 15.0),
    }
    passed = [what for what, quiet in missed.items() if quiet]
    return protection(stops=not born, leaks=bool(passed)), (
        "It raises where a backward function hands out NaN, and "
        f"{'is silent' if passed else 'told'} "
        f"at {', '.join(passed) or 'all else'}."
    )


@claim(
    "G95",
    chinese="VAE实现，包含所有数值保护",
    english="The files and lines of the project that the guide names hold the protections.",
    where="references; throughout",
    verdict="cannot be checked",
)
def the_project_holds_the_protections() -> Ruling:
    """The project's source is not published with the guide: nothing can be run."""
    return UNCHECKED, (
        "The source of the guide's project is not at hand; that its protections suffice is refuted "
        "by G49 to G53."
    )
