"""Programs from public reports that the tracer was built with."""
