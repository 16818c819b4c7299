"""What every layer of the tests shares."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # bootstrap/ stands beside labkit and is never installed

from bootstrap import chromium as finder  # noqa: E402
from bootstrap import venv  # noqa: E402

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--font-render-hinting=none",
]

# One thread, as in `make test`, also for whoever calls pytest alone: sums depend on it.
for name, count in venv.THREADS.items():
    os.environ.setdefault(name, count)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium. Where there is none, a skip; in CI, a failure."""
    try:
        path = finder.find()
    except ValueError as wrong:
        pytest.fail(str(wrong))
    if path is None:
        answer = pytest.fail if finder.must_be_there() else pytest.skip
        answer(finder.MISSING)
    return path


@pytest.fixture(scope="session")
def browser(chromium):
    """Chromium without a window. A process can have one only, so all browser tests share it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield started
        started.close()
