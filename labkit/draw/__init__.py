"""Readings and traces as pictures. The only rooms that import matplotlib, torchviz or graphviz."""

from labkit.draw.figures import (
    draw_board,
    draw_gradients,
    draw_graph,
    draw_map,
    draw_picture,
    draw_strip,
    draw_timeline,
)
from labkit.draw.paint import Picture
from labkit.draw.plots import draw_counts, draw_curves, draw_latent, draw_scores
from labkit.draw.visualize_gradients import visualize_gradients

__all__ = [
    "Picture",
    "draw_board",
    "draw_counts",
    "draw_curves",
    "draw_gradients",
    "draw_graph",
    "draw_latent",
    "draw_map",
    "draw_picture",
    "draw_scores",
    "draw_strip",
    "draw_timeline",
    "visualize_gradients",
]
