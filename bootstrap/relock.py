"""A new lock: what pip chooses today for the ranges in pyproject.toml, in a clean environment."""

import subprocess
import tomllib
from pathlib import Path

from bootstrap import ROOT, Stop, install, lock, venv

TORCH = "torch==2.13.0"  # the release that is tested here; pyproject.toml has the range
# Not of the lab: the installer itself, the project itself, and CUDA's parts of torch.
NOT_OURS = ("pip", "wheel", "labkit")
CUDA = ("nvidia", "cuda", "triton")


def rebuilt(environment: Path) -> lock.Lock:
    """Install the project's direct dependencies, then those of its tests, and read both off.

    Args:
        environment: A folder for a throwaway environment.
    """
    venv.make(environment)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    install.install_torch(TORCH, environment, pins=None)
    _install(environment, *project["dependencies"], "setuptools")
    lab = _frozen(environment)
    _install(environment, *project["optional-dependencies"]["dev"])
    both = _frozen(environment)
    if not set(lab) <= set(both):
        changed = sorted(set(lab) - set(both))
        raise Stop(f"The tests' packages change those of the lab: {', '.join(changed)}.")
    return lock.Lock(lab, tuple(pin for pin in both if pin not in lab))


def tidy(frozen: list[str]) -> tuple[str, ...]:
    """What `pip freeze` prints, as pins that fit every platform: sorted, torch first."""
    pins = [line.partition("+")[0] for line in frozen if "==" in line]
    kept = [pin for pin in pins if not _name(pin).startswith(CUDA) and _name(pin) not in NOT_OURS]
    return tuple(sorted(kept, key=lambda pin: (_name(pin) != "torch", _name(pin))))


def _name(pin: str) -> str:
    return pin.partition("==")[0].lower().replace("_", "-")


def _install(environment: Path, *requirements: str) -> None:
    if venv.call("-m", "pip", "install", "--quiet", TORCH, *requirements, venv=environment) != 0:
        raise Stop("pip found no set of packages for pyproject.toml; the lines above say why.")


def _frozen(environment: Path) -> tuple[str, ...]:
    command = [str(venv.python_of(environment)), "-m", "pip", "freeze", "--all"]
    variables = venv.environ(environment)
    output = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    return tidy(output.stdout.splitlines())
