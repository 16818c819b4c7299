"""Plain matplotlib plots of cells and of training: what is not a trace."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from labkit.draw.paint import Picture

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A7A00", "#5c6a72")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
INKS = ("#0072B2", "#A84600", "#006B4F", "#5c6a72")  # dark enough for words on white
STROKES = ("-", "--", "-.", ":")


def draw_counts(counts: Tensor, library: Tensor) -> Picture:
    """Two plots: variance against mean of every gene, and the cells' library sizes.

    Args:
        counts: shape (cell, gene), molecules.
        library: shape (cell,), molecules of the whole cell.
    """
    figure = Picture(figsize=(9, 3.4), layout="constrained")
    spread, sizes = figure.subplots(1, 2, width_ratios=(3, 2))
    x = counts.double().numpy()
    mean, variance = x.mean(0), x.var(0)
    spread.loglog(mean, variance, ".", color=OKABE_ITO[0], alpha=0.6, markeredgewidth=0)
    ends = np.array([mean.min(), mean.max()])
    spread.plot(ends, ends, color="black", linewidth=1)
    where = {"xycoords": "axes fraction", "ha": "right", "va": "bottom"}
    spread.annotate("the line is Poisson: variance = mean", (1, 0.03), **where)
    spread.set(
        xlabel="mean of a gene",
        ylabel="variance of a gene",
        title=f"{x.shape[1]} genes, each a dot",
    )
    sizes.hist(library.numpy(), bins=30, color=OKABE_ITO[0])
    sizes.set(xlabel="molecules in a cell", ylabel="cells", title="library sizes")
    figure.labkit_alt = (
        f"Variance against mean of {len(mean)} genes: {(variance > mean).mean():.0%} lie above the "
        f"Poisson line. Library sizes of {len(library)} cells."
    )
    return _bare(figure)


def draw_latent(z: Tensor, cell_type: Tensor, names: Sequence[str]) -> Picture:
    """Cells in the two main directions of the latent space; colour and shape are the type.

    Args:
        z: latent means, shape (cell, latent).
        cell_type: index into names, shape (cell,).
        names: of the cell types.
    """
    centred = (z - z.mean(0)).double()
    plane = (centred @ np.linalg.svd(centred.numpy(), full_matrices=False)[2][:2].T.copy()).numpy()
    figure = Picture(figsize=(9, 4.6), layout="constrained")
    axes = figure.subplots()
    for kind, name in enumerate(names):
        where = (cell_type == kind).numpy()
        style = {"color": OKABE_ITO[kind % len(OKABE_ITO)], "marker": MARKERS[kind % len(MARKERS)]}
        axes.plot(*plane[where].T, linestyle="", markersize=5, alpha=0.8, label=name, **style)
    axes.set(xlabel="first main direction", ylabel="second main direction")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    figure.labkit_alt = f"{len(z)} cells in the latent plane, marked by {len(names)} cell types."
    return _bare(figure)


def draw_curves(lines: Mapping[str, Sequence[float]], xlabel: str, ylabel: str) -> Picture:
    """Some lines over the same steps, each named at its end.

    Args:
        lines: name to values; what is not finite leaves a gap.
    """
    figure = Picture(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    for order, (name, values) in enumerate(lines.items()):
        stroke = {"color": INKS[order], "linestyle": STROKES[order % len(STROKES)]}
        finite = np.where(np.isfinite(values), values, np.nan)
        axes.plot(finite, linewidth=1.8, **stroke)
        if len(lines) > 1:
            place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(name, (len(values) - 1, finite[-1]), color=stroke["color"], **place)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    ends = (f"{name} from {line[0]:.3g} to {line[-1]:.3g}" for name, line in lines.items())
    figure.labkit_alt = f"{ylabel} over {xlabel}: {'; '.join(ends)}."
    return _bare(figure)


def draw_scores(scores: Mapping[str, float], xlabel: str) -> Picture:
    """Some numbers on one axis, a row each, in the order given.

    Args:
        scores: name to value.
        xlabel: what they are and in which unit.
    """
    names, values = list(scores), list(scores.values())
    figure = Picture(figsize=(9, 0.6 + 0.45 * len(names)), layout="constrained")
    axes = figure.subplots()
    rows = range(len(names))
    axes.hlines(rows, min(values), values, color=INKS[-1], linewidth=1)
    axes.plot(values, rows, "o", color=INKS[0])
    for row, value in zip(rows, values, strict=True):
        place = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{value:.1f}", (value, row), **place)
    axes.set_yticks(rows, names)
    axes.set(xlabel=xlabel, ylim=(len(names) - 0.5, -0.5))
    axes.margins(x=0.14)
    order = sorted(names, key=scores.__getitem__)
    figure.labkit_alt = f"{xlabel}, lowest first: {', '.join(order)}."
    return _bare(figure)


def _bare(figure: Picture) -> Picture:
    """Leave only the two axis lines that carry ticks."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    return figure
