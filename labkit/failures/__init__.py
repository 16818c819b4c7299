"""One file per failure mode; the file's name is the failure's name everywhere."""

import pkgutil


def names() -> tuple[str, ...]:
    """The failure modes that exist, in alphabetical order."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))
