"""Start here: `python3 lab.py lab` opens the lab, `python3 lab.py test` runs the suite.

Any Python can read this file, also an old one, so that it can say that it is too old.
The work is done in bootstrap/, which needs the standard library alone.
"""

import os
import subprocess
import sys

OLDEST = (3, 11)
TESTED_FIRST = ("python3.11", "python3.12", "python3.13", "python3.14")


def too_old(version):
    """What an old Python says when no newer one was found."""
    found = ".".join(str(part) for part in version[:2])
    return "\n".join(
        [
            "lab: This is Python " + found + "; the lab needs 3.11 or newer.",
            "lab: Install one: 'sudo apt-get install python3.11 python3.11-venv' (Debian, Ubuntu),",
            "lab: 'brew install python@3.11' (macOS), or from python.org (Windows).",
            "lab: Then name it: 'make lab PYTHON=python3.11', or 'python3.11 lab.py lab'.",
        ]
    )


def runs(name):
    """True if this name starts a Python that is new enough (a name alone proves nothing)."""
    test = "import sys; sys.exit(sys.version_info[:2] < (3, 11))"
    with open(os.devnull, "w") as nowhere:
        try:
            return subprocess.call([name, "-c", test], stdout=nowhere, stderr=nowhere) == 0
        except OSError:
            return False


def go_on_with_newer(arguments):
    """An old Python hands over to a newer one, or says what to do."""
    for name in TESTED_FIRST:
        if runs(name):
            version = ".".join(str(part) for part in sys.version_info[:2])
            print("lab: Python " + version + " is too old; going on with " + name + ".")
            sys.stdout.flush()
            return subprocess.call([name, os.path.abspath(__file__)] + arguments)  # noqa: RUF005
    sys.stderr.write(too_old(sys.version_info) + "\n")
    return 1


def main(arguments):
    """Hand over to the command that was asked for."""
    if sys.version_info[:2] < OLDEST:
        return go_on_with_newer(arguments)
    from bootstrap.commands import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
