"""`visualize_gradients`: the guide's picture of all gradients, without its crashes."""

from pathlib import Path

import torch
from torch import Tensor, nn

from labkit.draw.figures import draw_gradients
from labkit.draw.paint import Picture
from labkit.probes.measure import measure
from labkit.probes.report import Fate, Report
from labkit.probes.stats import histogram
from labkit.probes.verdict import Verdict

VANISHED = 1e-6  # largest entry, as a share of the model's largest gradient


def visualize_gradients(
    model: nn.Module, loss: Tensor | None = None, path: str | Path | None = None
) -> Picture:
    """Draw one histogram of magnitudes for each trainable parameter, worst first.

    NaN, +Inf, -Inf, zero and subnormal are columns of their own, on one log axis for all. Nothing
    is changed: no ``.grad`` is written, and the loss can still be differentiated afterwards.

    Args:
        model: any module.
        loss: its gradients are drawn. None, or a loss whose backward ran already: what the
            parameters hold in ``.grad``.
        path: a PNG file to write; None writes none.

    Returns:
        The figure; a notebook shows it. It is in no list of open figures, so none is to close.
        The worst parameters have a row each; one line counts the rest and says how they fare.

    The guide's original is blind where (each shown in a test):
        One Inf, or a gradient that is all NaN, ends it; one NaN is dropped without a word.
        bfloat16 ends it.
        It draws the first six parameters, whatever their state.
        It runs backward: gradients double, or it raises after yours.
        Each call leaves an open figure behind.

    Source: the guide, 4.2.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    grads = _gradients(named, loss)
    most = max((measure(g).large for g in grads.values() if g is not None), default=0.0)
    fates = tuple(_fate(name, p, grads[name], most) for name, p in named.items())
    picture = draw_gradients(Report(Verdict.HEALTHY, None, (), fates, (), (), ()))
    if path is not None:
        Path(path).write_bytes(picture.png())
    return picture


def _gradients(named: dict[str, Tensor], loss: Tensor | None) -> dict[str, Tensor | None]:
    held = {name: p.grad for name, p in named.items()}
    if loss is None:
        return held
    if not loss.requires_grad:
        return dict.fromkeys(named)
    try:
        params = list(named.values())
        found = torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        if "second time" not in str(error):
            raise
        return held
    return dict(zip(named, found, strict=True))


def _fate(name: str, p: Tensor, grad: Tensor | None, most: float) -> Fate:
    if grad is None:
        return Fate(name, tuple(p.shape), "none", None)
    grad = grad.detach().to_dense()
    stats = measure(grad, counted=grad.numel())
    word = stats.word if stats.word != "empty" else "ok"
    small = word == "ok" and stats.large < VANISHED * most
    shown = "vanishing" if small else word
    return Fate(name, tuple(p.shape), shown, histogram(grad), float(grad.double().norm()))
