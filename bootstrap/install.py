"""From the lock to a ready environment: torch first, then the pins, then labkit itself."""

import hashlib
import json
import os
import platform
import shutil
import sys
import tomllib
import urllib.request
from pathlib import Path

from bootstrap import ROOT, Stop, lock, say, venv

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
ANSWERS_WITHIN = 5.0  # seconds; a slower index would not bring 200 MB in useful time
STAMP = "labkit-stamp.json"
# No news pop-up, and no buttons from packages that only the build of the notebooks needs.
JUPYTER_CONFIG = ROOT / "jupyter_config"
LARGE = """\
torch comes from pip's own index ({why}).
On Linux, PyPI's build of torch brings CUDA with it: several GB to download and to store.
For the small build, name an index that has it: LAB_TORCH_INDEX=URL make lab"""
INTERRUPTED = """\
The installation stopped; the lines above say why.
What is installed stays. The same command, given again, goes on from here."""


def key(level: str, environment: Path = venv.VENV) -> str:
    """What the environment was made from, as one hash: pins, project, Python, platform, place."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    made_from = {
        "pins": lock.read().pins(level),
        "project": [project["build-system"], project["project"]],
        "jupyter": [f.read_text(encoding="utf-8") for f in sorted(JUPYTER_CONFIG.rglob("*.json"))],
        "python": _python_version(environment),
        "platform": [sys.platform, platform.machine()],
        "root": str(ROOT),
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def ready(level: str) -> None:
    """Bring the environment to a level, `lab` or `tests`; a finished one costs a look at a file.

    Raises:
        Stop: Something is missing or the installation was cut off; the message says what to do.
    """
    stamp = _read_stamp()
    if venv.python_of().exists() and stamp.get(level) == key(level):
        say(f"The environment {venv.VENV.name} is ready.")
        return
    if stamp.get("root", str(ROOT)) != str(ROOT) or not venv.works():
        venv.make()
    else:
        say(f"Bringing {venv.VENV.name} up to date with {lock.LOCK.name}.")
    install(level)


def install(level: str) -> None:
    """Install every pin of a level, labkit and the page's settings; then, and only then, stamp."""
    pins = lock.read()
    levels = ["lab", "tests"] if level == "tests" else ["lab"]
    for name in venv.drop_unfinished():
        say(f"{name} was not finished; it is installed again.")
    say("Installing. The first time takes a minute or more and about 1.5 GB of disk.")
    install_torch(pins.torch)
    say(f"Step 2 of 3: the other packages ({len(pins.pins(level)) - 1}).")
    _pip(*pins.pins(level))
    say("Step 3 of 3: labkit itself, from this folder.")
    _pip("--no-deps", "--no-build-isolation", "--editable", ".")
    shutil.copytree(JUPYTER_CONFIG, venv.VENV / "etc/jupyter", dirs_exist_ok=True)
    _write_stamp(levels)
    say("The environment is ready.")


def install_torch(pin: str, environment: Path = venv.VENV, pins: Path | None = lock.LOCK) -> None:
    """Install torch alone: from the CPU index where it answers, else from pip's own index.

    Args:
        pin: Such as `torch==2.13.0`; that a build for the CPU satisfies it too.
        environment: Where to install it.
        pins: The file that fixes the versions of what torch itself needs, if there is one.
    """
    version = pin.removeprefix("torch==")
    if any(list(s.glob(f"torch-{version}*.dist-info")) for s in venv.site_packages(environment)):
        say(f"Step 1 of 3: {pin} is there.")
        return
    index, why = torch_index()
    if index:
        say(f"Step 1 of 3: {pin}, the CPU build from {index}.")
        arguments = ("install", "--no-deps", "--index-url", index, pin)
        if venv.call("-m", "pip", *arguments, venv=environment) == 0:
            return
        why = f"{index} has no {pin} for this Python"
    say(f"Step 1 of 3: {pin}.")
    if sys.platform == "linux":
        say(LARGE.format(why=why))
    constraint = ("--constraint", str(pins)) if pins else ()
    _pip(*constraint, pin, environment=environment)


def torch_index() -> tuple[str | None, str]:
    """The index that has the small build, if there is one, and in words why there is none.

    `LAB_TORCH_INDEX` names it; set but empty, it means pip's own index.
    """
    default = CPU_INDEX if sys.platform == "linux" else ""
    index = os.environ.get("LAB_TORCH_INDEX", default)
    if not index:
        return None, "LAB_TORCH_INDEX is empty"
    if answers(index):
        return index, ""
    return None, f"{index} did not answer within {ANSWERS_WITHIN:g} s"


def answers(index: str) -> bool:
    """True if a package index has a page for torch and sends it soon."""
    try:
        with urllib.request.urlopen(index.rstrip("/") + "/torch/", timeout=ANSWERS_WITHIN):
            return True
    except (OSError, ValueError):
        return False


def _pip(*arguments: str, environment: Path = venv.VENV) -> None:
    command = ("-m", "pip", "install", "--no-input", "--disable-pip-version-check", *arguments)
    if venv.call(*command, venv=environment) != 0:
        raise Stop(INTERRUPTED)


def _python_version(environment: Path) -> str:
    config = environment / "pyvenv.cfg"
    lines = config.read_text(encoding="utf-8").splitlines() if config.exists() else []
    return next((line for line in lines if line.startswith("version")), "none")


def _read_stamp() -> dict:
    try:
        return json.loads((venv.VENV / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write_stamp(levels: list[str]) -> None:
    stamp = {"root": str(ROOT), **{level: key(level) for level in levels}}
    (venv.VENV / STAMP).write_text(json.dumps(stamp), encoding="utf-8")
