"""The virtual environment `.venv`: made, mended and told apart from an unfinished one."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bootstrap import ROOT, Stop, say

VENV = ROOT / ".venv"
WINDOWS = sys.platform == "win32"
# Two OpenMP threads on a busy machine were ten times slower than one.
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# Settings of other installations that would leak into this one.
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX")

NO_VENV = """\
This Python cannot make virtual environments: its module '{module}' is missing.
Debian and Ubuntu: sudo apt-get install python3-venv
Elsewhere: install Python {version} from python.org, or use conda (environment.yml).
Then run the same command again."""


def python_of(venv: Path = VENV) -> Path:
    """Where the environment's own Python lies."""
    return venv / ("Scripts/python.exe" if WINDOWS else "bin/python")


def environ(venv: Path = VENV) -> dict[str, str]:
    """The variables that programs in the environment start with, as if it were activated."""
    own = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    own["VIRTUAL_ENV"] = str(venv)
    own["PIP_USER"] = "0"  # some computers set it for all, and pip refuses it in an environment
    own["PATH"] = os.pathsep.join([str(python_of(venv).parent), os.environ.get("PATH", os.defpath)])
    return {**THREADS, **own}


def call(*arguments: str, venv: Path = VENV) -> int:
    """Run the environment's Python in the tree's root and return its exit status."""
    return subprocess.call([str(python_of(venv)), *arguments], cwd=ROOT, env=environ(venv))


def missing_module() -> str | None:
    """The module without which no environment can be made, if one is missing."""
    needed = ("venv", "ensurepip")
    return next((name for name in needed if importlib.util.find_spec(name) is None), None)


def works(venv: Path = VENV) -> bool:
    """True if the environment's Python starts and has pip; an interrupted one has not."""
    command = [str(python_of(venv)), "-m", "pip", "--version"]
    try:
        result = subprocess.run(command, env=environ(venv), capture_output=True, check=False)
    except OSError:
        return False
    return result.returncode == 0


def make(venv: Path = VENV) -> None:
    """Make the environment anew.

    Raises:
        Stop: This Python lacks venv or ensurepip, or the environment could not be made.
    """
    missing = missing_module()
    if missing:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise Stop(NO_VENV.format(module=missing, version=version))
    say(f"Making the virtual environment {venv.name} with Python {sys.version.split()[0]}.")
    if subprocess.call([sys.executable, "-m", "venv", "--clear", str(venv)]) != 0:
        raise Stop(f"{venv} could not be made; the lines above say why.")


def site_packages(venv: Path = VENV) -> list[Path]:
    """The folders that hold the environment's packages."""
    pattern = "Lib/site-packages" if WINDOWS else "lib/python*/site-packages"
    return sorted(venv.glob(pattern))


def drop_unfinished(venv: Path = VENV) -> list[str]:
    """Make pip forget packages whose installation was cut off, so that it installs them again.

    pip copies a package's code and metadata before its data files and writes INSTALLER last.
    Without this, a JupyterLab that was cut off there counts as installed and never starts.

    Returns:
        The names of the folders that were dropped.
    """
    dropped = []
    for site in site_packages(venv):
        cut_off = {p for p in site.glob("*.dist-info") if not (p / "INSTALLER").exists()}
        set_aside = set(site.glob("~*"))  # what an interrupted upgrade leaves
        for folder in sorted(cut_off | set_aside):
            shutil.rmtree(folder, ignore_errors=True)
            dropped.append(folder.name)
    return dropped
