"""A training run went wrong overnight: find the line, name it, repair it, and pay for each look."""

from labkit.whodunit.case import Case
from labkit.whodunit.key import key

__all__ = ["Case", "key"]
