"""A site of two notebooks: one with a map and three sliders, one whose knob is a choice."""

from pathlib import Path

import build_site
import pytest

STEMS = ("13_item", "22_exploding_logvar")


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The folder of the pages."""
    folder = tmp_path_factory.mktemp("site")
    assert len(list(build_site.site(STEMS, folder))) >= len(STEMS)
    return folder
