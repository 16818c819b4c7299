"""Readings and traces as pictures. The only rooms that import matplotlib, torchviz or graphviz."""
