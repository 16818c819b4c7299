"""Why gradients die and numbers blow up, and how to repair them."""

__version__ = "0.1.0"
