"""One file per failure mode; the file's name is the failure's name everywhere."""

import pkgutil


def names() -> tuple[str, ...]:
    """The failure modes that exist, in alphabetical order."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))
