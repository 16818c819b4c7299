"""Small files, and models that are read in one sitting: they are the heart of the lab."""

import pytest
from rooms import LABKIT

FILES = sorted(LABKIT.rglob("*.py"))
LONGEST = 250  # lines of a file: more is hardly one idea
MODELS = 900  # lines of all models together, docstrings included


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LABKIT)))
def test_a_file_holds_one_idea(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_the_models_are_read_in_an_hour():
    models = (LABKIT / "models").rglob("*.py")
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in models}
    assert sum(lines.values()) < MODELS, lines
