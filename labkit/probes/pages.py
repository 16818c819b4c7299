"""Memory that a traced step frees is kept for the next one."""

from functools import cache

import torch

_MAPPING = (32 << 20) - (1 << 16)  # bytes; glibc follows mappings of up to 32 MB


@cache
def keep_pages() -> None:
    """Raises the amount of free memory from which the allocator gives some back, to 64 MB.

    glibc gives back the top of its heap as soon as twice the largest mapping that was ever freed
    lies there unused. A trace holds a few tensors for a moment longer than the plain step, so each
    step would ask for the same pages again: up to a fifth of its time. To free one large mapping
    lifts that limit for good, as any large tensor of the user's would; it is never written to, so
    it takes no memory. Other allocators do not mind.
    """
    torch.empty(_MAPPING, dtype=torch.uint8)
