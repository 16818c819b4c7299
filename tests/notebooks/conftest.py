"""The two sound fixtures, built once for all tests of the builder and its rules."""

from pathlib import Path

import build
import pytest
from workshop import FIXTURES, fresh


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """A folder with both sound fixtures, built."""
    folder = fresh(tmp_path_factory.mktemp("sound"), *FIXTURES.glob("sound/*.py"))
    assert build.main([], folder) == 0
    return folder
