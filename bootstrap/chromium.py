"""Where the browser is that the browser tests drive."""

import os
import shutil
from collections.abc import Mapping

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = """\
No Chromium was found, so the browser tests cannot run.
Debian: sudo apt-get install chromium
Elsewhere: install Chromium or Chrome and name it, LAB_CHROMIUM=/path/to/chrome make test"""
WRONG = "LAB_CHROMIUM names {given!r}, which is no program; give the path of Chromium or Chrome."


def find(environ: Mapping[str, str] = os.environ) -> str | None:
    """The path of Chromium: what `LAB_CHROMIUM` names, else the first known name on the path.

    Raises:
        ValueError: `LAB_CHROMIUM` names something that cannot be run.
    """
    path = environ.get("PATH")
    given = environ.get("LAB_CHROMIUM")
    names = (given,) if given else NAMES
    found = next(filter(None, (shutil.which(name, path=path) for name in names)), None)
    if given and not found:
        raise ValueError(WRONG.format(given=given))
    return found


def must_be_there(environ: Mapping[str, str] = os.environ) -> bool:
    """True where a missing browser is a failure: in CI."""
    return environ.get("CI", "").lower() in ("true", "1")
