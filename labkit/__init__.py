"""Why gradients die and numbers blow up, and how to repair them."""

__version__ = "0.1.0"


def __getattr__(name: str):
    """Load the tracer when it is asked for; a bare import stays light."""
    if name == "trace":
        from labkit.probes.trace import trace

        return trace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
