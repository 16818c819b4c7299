"""What every layer of the tests shares."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # bootstrap/ stands beside labkit and is never installed

from bootstrap import chromium as browser  # noqa: E402
from bootstrap import venv  # noqa: E402

# One thread, as in `make test`, also for whoever calls pytest alone: sums depend on it.
for name, count in venv.THREADS.items():
    os.environ.setdefault(name, count)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium. Where there is none, a skip; in CI, a failure."""
    try:
        path = browser.find()
    except ValueError as wrong:
        pytest.fail(str(wrong))
    if path is None:
        answer = pytest.fail if browser.must_be_there() else pytest.skip
        answer(browser.MISSING)
    return path
