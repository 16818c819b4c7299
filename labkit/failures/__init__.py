"""One file per failure mode."""
