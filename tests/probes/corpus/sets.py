"""The sets of programs, one folder each, found by their folders' names."""

import importlib
import pkgutil

from tests.probes import corpus
from tests.probes.corpus.case import Case


def _cases(folder: str) -> tuple[Case, ...]:
    room = importlib.import_module(f"{corpus.__name__}.{folder}")
    names = sorted(module.name for module in pkgutil.iter_modules(room.__path__))
    modules = (importlib.import_module(f"{room.__name__}.{name}") for name in names)
    return tuple(case for module in modules for case in module.corpus.cases)


SETS: dict[str, tuple[Case, ...]] = {
    module.name: _cases(module.name)
    for module in pkgutil.iter_modules(corpus.__path__)
    if module.ispkg
}
ALL = tuple(case for cases in SETS.values() for case in cases)


def about(name: str) -> str:
    """The first line of what a set says of itself."""
    return importlib.import_module(f"{corpus.__name__}.{name}").__doc__.splitlines()[0]
