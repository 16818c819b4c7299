"""The commands of `lab.py`; `make` has a target for each."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bootstrap import ROOT, Stop, chromium, install, jupyter, lock, relock, say, venv

CACHES = (".pytest_cache", ".ruff_cache", ".hypothesis", "labkit.egg-info")


def lab(extra: list[str]) -> int:
    """set up and open JupyterLab on your own copies of the notebooks"""
    install.ready("lab")
    return jupyter.open_lab(extra)


def test(extra: list[str]) -> int:
    """set up and run the whole suite, as CI does"""
    missing = chromium.find() is None
    if missing and chromium.must_be_there():
        raise Stop(chromium.MISSING)
    install.ready("tests")
    if missing:
        say("\n".join(["=" * 70, chromium.MISSING, "All other tests run.", "=" * 70]))
    return venv.call("-m", "pytest", *spread(extra, os.cpu_count() or 1), *extra)


def spread(extra: list[str], cores: int) -> tuple[str, ...]:
    """Tests on up to four cores, a file at a time: the cells of a notebook stay together.

    Args:
        extra: what goes to pytest; one who debugs, or says how many, is left alone.
        cores: of this machine.
    """
    if cores == 1 or any(word.startswith(("-n", "--pdb", "--trace", "-s")) for word in extra):
        return ()
    return ("-n", str(min(cores, 4)), "--dist", "loadfile")


def setup(extra: list[str]) -> int:
    """set up the lab and open nothing"""
    install.ready("lab")
    return 0


def here(extra: list[str]) -> int:
    """open the lab with the Python that runs this and install nothing (conda)"""
    return jupyter.open_here(extra)


def notebooks(extra: list[str]) -> int:
    """build the notebooks from their text and execute them"""
    install.ready("tests")
    return venv.call("notebooks/build.py", *extra)


def workshop(extra: list[str]) -> int:
    """make the learner's and the facilitator's edition of the notebooks"""
    install.ready("lab")
    return venv.call("notebooks/editions.py", *extra)


def site(extra: list[str]) -> int:
    """make the pages that need no kernel, in site/ (all of them: about five minutes)"""
    install.ready("tests")
    return venv.call("notebooks/build_site.py", *extra)


def lint(extra: list[str]) -> int:
    """check style and format"""
    install.ready("tests")
    return venv.call("-m", "ruff", "check", ".") or venv.call(
        "-m", "ruff", "format", "--check", "."
    )


def bench(extra: list[str]) -> int:
    """run the benchmarks one after another; each prints a table"""
    install.ready("tests")
    scripts = [Path(name) for name in extra] or sorted((ROOT / "benchmarks").glob("[a-z]*.py"))
    return max((venv.call(str(script)) for script in scripts), default=0)


def update_lock(extra: list[str]) -> int:
    """rebuild requirements.lock from pyproject.toml in a clean environment"""
    with tempfile.TemporaryDirectory() as folder:
        new = relock.rebuilt(Path(folder) / "venv")
    lock.LOCK.write_text(lock.render(new), encoding="utf-8")
    say(f"{lock.LOCK.name}: {len(new.lab)} packages for the lab, {len(new.tests)} for the tests.")
    return 0


def clean(extra: list[str]) -> int:
    """remove the environment and caches; my_lab/ stays"""
    for name in (venv.VENV.name, *CACHES):
        shutil.rmtree(ROOT / name, ignore_errors=True)
    say("Removed the environment and the caches. Your notebooks in my_lab/ are untouched.")
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "lab": lab,
    "test": test,
    "setup": setup,
    "here": here,
    "notebooks": notebooks,
    "site": site,
    "workshop": workshop,
    "lint": lint,
    "bench": bench,
    "lock": update_lock,
    "clean": clean,
}


def usage() -> str:
    """The list of commands with one line each."""
    lines = [f"  python3 lab.py {name:10} {command.__doc__}" for name, command in COMMANDS.items()]
    return "\n".join(["Commands:", *lines])


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    name, *extra = arguments or ["help"]
    if name not in COMMANDS:
        print(usage())
        return 0 if name in ("help", "-h", "--help") else 2
    os.chdir(ROOT)
    try:
        return COMMANDS[name](extra)
    except (Stop, ValueError) as problem:
        print("lab: " + str(problem).replace("\n", "\nlab: "), file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        say("Interrupted. What is installed stays; the same command goes on from here.")
        return 130
