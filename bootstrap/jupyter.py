"""JupyterLab on the learner's copies: loopback alone, token on, a free port."""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

from bootstrap import Stop, copies, say, venv

FIRST = "00_start_here.ipynb"
DEFAULT_PORT = 8888
TRIES = 50

TAKEN = """\
Port {wanted} is taken, so the lab opens on port {port}.
A lab that is still open elsewhere may hold it; close that one with Ctrl-C in its terminal.
For a port of your own: LAB_PORT=9000 make lab"""
TAKEN_BY_WISH = """\
Port {wanted}, which LAB_PORT asks for, is taken.
Choose another (LAB_PORT={other} make lab), or stop the program that holds it."""
NO_PORT = "LAB_PORT is {given!r}; it must be a whole number from 1024 to 65535, such as 8888."
NO_JUPYTER = """\
{python} has no JupyterLab, so it cannot open the lab.
'make lab' makes an environment that has it; with conda, activate the one of environment.yml."""


def is_free(port: int) -> bool:
    """True if nothing listens on this port of the loopback address."""
    with socket.socket() as probe:
        if os.name == "posix":  # a port that was closed a moment ago is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose_port() -> int:
    """The port to open on: `LAB_PORT`, or the first free one from 8888.

    Raises:
        Stop: `LAB_PORT` is not a port or is taken, or no port near 8888 is free.
    """
    given = os.environ.get("LAB_PORT", "")
    wanted = _number(given) if given else DEFAULT_PORT
    free = next((p for p in range(wanted, min(wanted + TRIES, 65536)) if is_free(p)), None)
    if free is None:
        raise Stop(TAKEN_BY_WISH.format(wanted=wanted, other=9000))
    if free != wanted and given:
        raise Stop(TAKEN_BY_WISH.format(wanted=wanted, other=free))
    if free != wanted:
        say(TAKEN.format(wanted=wanted, port=free))
    return free


def arguments(port: int, folder: Path) -> list[str]:
    """What JupyterLab is started with."""
    page = f"/lab/tree/{FIRST}" if (folder / FIRST).exists() else "/lab"
    return [
        "-m",
        "jupyterlab",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        f"--ServerApp.root_dir={folder}",
        f"--LabApp.default_url={page}",
        *(["--allow-root"] if _is_root() else []),
    ]


def environ(folder: Path) -> dict[str, str]:
    """The variables that JupyterLab starts with.

    The lab keeps its settings beside the learner's notebooks: what somebody once configured for
    another Jupyter on this computer, such as an empty token, does not reach it.
    """
    return {**venv.environ(), "JUPYTER_CONFIG_DIR": str(folder / ".jupyter")}


def open_lab(extra: list[str], python: str | None = None) -> int:
    """Refresh the learner's copies and open them in JupyterLab.

    Args:
        extra: Further arguments for JupyterLab, such as `--no-browser`.
        python: The Python that runs it; by default the one of `.venv`.
    """
    variables = environ(copies.MY_LAB) if python is None else _here(copies.MY_LAB)
    python = python or str(venv.python_of())
    states = copies.refresh()
    copies.tell(states)
    trust([name for name, state in states.items() if state == "new"], python, variables)
    command = [python, *arguments(choose_port(), copies.MY_LAB), *extra]
    say("Opening JupyterLab in your browser. If no page opens, follow the last address below.")
    say("To stop: Ctrl-C here, twice.")
    if venv.WINDOWS:
        return subprocess.call(command, env=variables)
    os.execve(command[0], command, variables)  # so that signals reach Jupyter itself


def trust(names: list[str], python: str, variables: dict[str, str]) -> None:
    """Sign fresh copies, so that Jupyter shows their stored outputs and does not warn of them."""
    if names:
        command = [python, "-m", "nbformat.sign", *names]
        silent = subprocess.DEVNULL
        subprocess.call(command, cwd=copies.MY_LAB, env=variables, stdout=silent, stderr=silent)


def open_here(extra: list[str]) -> int:
    """Open the lab with the Python that runs this, for conda: nothing is installed."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise Stop(NO_JUPYTER.format(python=sys.executable))
    return open_lab(extra, python=sys.executable)


def _here(folder: Path) -> dict[str, str]:
    return {**venv.THREADS, **os.environ, "JUPYTER_CONFIG_DIR": str(folder / ".jupyter")}


def _number(given: str) -> int:
    if not given.isdecimal() or not 1024 <= int(given) <= 65535:
        raise Stop(NO_PORT.format(given=given))
    return int(given)


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
