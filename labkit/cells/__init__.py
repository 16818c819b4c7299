"""Cells to learn from: real counts that come with the package, and simulated ones."""
