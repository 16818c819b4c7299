"""The naive way to a live picture: `interact`, and every figure anew for every move.

Text of a notebook cell; `slider.py` runs it beside the panel. It is not made slow on purpose: the
graph comes from the same wheel, there are two axes, and a set of bars is one call of `bar`.
"""

import math
import subprocess

import ipywidgets
import matplotlib.pyplot as plt
from IPython.display import SVG, display

from labkit.draw.bars import bars_of
from labkit.draw.cells import is_drawn, is_plumbing
from labkit.draw.layout import renderers
from labkit.failures import exploding_logvar as failure
from labkit.probes.stats import DECADES

COLOURS = {"ok": "#d9eee6", "zero": "#c3e1f5", "empty": "white", "inf": "#f7c54f", "nan": "#a84600"}


def graph(report):
    """One node for each op, coloured, laid out by graphviz."""
    shown = [op for op in report.ops if is_drawn(op) and not is_plumbing(op)]
    names = {op.index for op in shown}
    lines = ["digraph {", "node [shape=box, style=filled, fontsize=10, height=0.2]"]
    for op in shown:
        fill = COLOURS[op.outputs[0].word]
        lines.append(f'n{op.index} [label="{op.name}", fillcolor="{fill}"]')
        lines += [f"n{parent} -> n{op.index}" for parent in op.parents if parent in names]
    source = "\n".join([*lines, "}"])
    command = [renderers()[0], "-Tsvg"]
    return SVG(subprocess.run(command, input=source, capture_output=True, text=True).stdout)


def plots(report):
    """Timeline above, gradient histograms below."""
    _, (above, below) = plt.subplots(2, figsize=(6.4, 4.6))
    bars = [bar for bar in bars_of(report) if bar.large > 0]
    low = [math.log10(bar.small) for bar in bars]
    high = [math.log10(bar.large) for bar in bars]
    tall = [b - a + 0.5 for a, b in zip(low, high, strict=True)]
    above.bar(range(len(bars)), tall, bottom=low)
    above.axhline(math.log10(3.4e38))
    for row, fate in enumerate(report.parameters):
        counts = fate.gradient.decades
        below.bar(DECADES, [0.9 * n / max(1, *counts) for n in counts], bottom=row)
    below.set_yticks(range(len(report.parameters)), [fate.name for fate in report.parameters])
    plt.show()


def naive(shift):
    """Trace, then draw everything."""
    reading = failure.run(failure.Settings(shift=shift))
    print(reading)
    display(graph(reading.report))
    plots(reading.report)


slider = ipywidgets.FloatSlider(0, min=-40, max=200, step=0.5, description="shift")
ipywidgets.interact(naive, shift=slider)
