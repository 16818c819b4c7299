"""Compares environment.yml with pyproject.toml and the lock."""

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bootstrap.lock import Lock

CHANNELS = ["conda-forge", "nodefaults"]
CONDA_NAMES = {"torch": "pytorch-cpu", "matplotlib": "matplotlib-base"}
FROM_PIP = {
    "torchviz": "not sure to be on conda-forge",
    "graphviz-pure": "a wheel of what conda has as graphviz",
}
CONDA_ALONE = {
    "python": "the interpreter that is tested here",
    "pip": "installs the pip block",
    "graphviz": "the system's own `dot`, no Python package",
    "setuptools": "torchviz imports distutils, which setuptools gives newer Pythons",
}
UNVERSIONED = {"pip", "graphviz"}
FORBIDDEN = {"pytorch": "may bring CUDA: use pytorch-cpu", "matplotlib": "brings Qt"}


def faults(environment: dict, project: dict, lock: Lock) -> list[str]:
    """Every way in which environment.yml is not what the project and the lock say.

    Args:
        environment: environment.yml, parsed.
        project: The `[project]` table of pyproject.toml.
        lock: The parsed lock.

    Returns:
        One line for each fault; empty if the file is honest.
    """
    locked = dict(pin.split("==") for pin in lock.lab)
    locked = {canonicalize_name(name): version for name, version in locked.items()}
    conda, from_pip = _parts(environment["dependencies"])
    direct = {canonicalize_name(Requirement(r).name) for r in project["dependencies"]}
    wanted_conda = {CONDA_NAMES.get(n, n): locked.get(n) for n in direct - FROM_PIP.keys()}
    wanted_pip = {n: locked.get(n) for n in direct & FROM_PIP.keys()}
    return [
        *_channels(environment),
        *_versions("conda", conda, wanted_conda | {"setuptools": locked["setuptools"]}),
        *_versions("pip", {n: v for n, v in from_pip.items() if n != "-e ."}, wanted_pip),
        *(f"conda: {n}: {FORBIDDEN[n]}" for n in conda if n in FORBIDDEN),
        *_python(conda, project),
        *([] if "-e ." in from_pip else ["pip: labkit itself, '-e .', is missing"]),
    ]


def _parts(dependencies: list) -> tuple[dict[str, str], dict[str, str]]:
    plain = [entry for entry in dependencies if isinstance(entry, str)]
    block = next((entry["pip"] for entry in dependencies if isinstance(entry, dict)), [])
    return dict(_split(e, "=") for e in plain), dict(_split(e, "==") for e in block)


def _split(entry: str, sign: str) -> tuple[str, str]:
    name, _, version = entry.partition(sign)
    return name.strip(), version.strip()


def _channels(environment: dict) -> list[str]:
    found = environment.get("channels")
    return [] if found == CHANNELS else [f"channels: expected {CHANNELS}, found {found}"]


def _versions(where: str, found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    missing = [f"{where}: {name} is missing" for name in wanted if name not in found]
    foreign = [n for n in found if n not in wanted and n not in CONDA_ALONE | FORBIDDEN]
    other = [
        f"{where}: {name} is {found[name] or 'unpinned'}, the lock has {version}"
        for name, version in wanted.items()
        if name in found and found[name] != version
    ]
    return missing + other + [f"{where}: {name} is not a direct dependency" for name in foreign]


def _python(conda: dict[str, str], project: dict) -> list[str]:
    oldest = project["requires-python"].removeprefix(">=")
    if conda.get("python") != oldest:
        return [f"conda: python is {conda.get('python')}; {oldest} is what is tested"]
    return []
