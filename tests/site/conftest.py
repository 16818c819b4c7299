"""A site of two notebooks: one with a map and three sliders, one whose knob is a choice."""

import os
from pathlib import Path

import build_site
import pytest
from filelock import FileLock

STEMS = ("13_item", "22_exploding_logvar")


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The folder of the pages; made once, also where several processes share the tests."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    with FileLock(shared / "site.lock"):
        if not (shared / "site" / "index.html").exists():
            assert len(list(build_site.site(STEMS, shared / "site"))) >= len(STEMS)
    return shared / "site"
