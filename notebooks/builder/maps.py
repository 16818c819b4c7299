"""Failure maps of the notebooks: measured anew on demand, a sample measured by every build."""

import importlib
from types import ModuleType

from labkit import failures
from labkit.maps import disagreements, path_of, rebuild


def failure_of(slug: str) -> ModuleType | None:
    """The failure mode of a notebook, if it has one that declares a map."""
    if slug not in failures.names():
        return None
    failure = importlib.import_module(f"labkit.failures.{slug}")
    return failure if hasattr(failure, "MAP") else None


def measure(slug: str) -> str:
    """Measure a notebook's map anew; what changed, in words."""
    failure = failure_of(slug)
    if failure is None:
        return ""
    path = path_of(failure)
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    new = rebuild(failure).read_text(encoding="utf-8")
    return f"{path.name}: {'unchanged' if new == old else 'changed' if old else 'new'}"


def map_faults(slug: str) -> list[str]:
    """Where a sample of the stored map does not agree with a run of now."""
    failure = failure_of(slug)
    if failure is None:
        return []
    again = f"python notebooks/build.py --maps {slug}"
    if not path_of(failure).exists():
        return [f"its map was never measured: {again}"]
    return [f"map, {line}: {again}" for line in disagreements(failure)]
