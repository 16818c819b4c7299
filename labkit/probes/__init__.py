"""Diagnostics for anybody's model. Torch only, plain data out, nothing drawn."""
