"""Docstrings for everything public, nothing left for later, no path of a machine."""

import ast
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from rooms import LABKIT

ROOT = LABKIT.parent
FILES = sorted(LABKIT.rglob("*.py"))
LATER = r"\b(?:TODO|FIXME|XXX)\b|raise NotImplementedError(?!\(\s*f?\")"  # without a reason
# A path that is only an example belongs to somebody; jovyan lives in every Jupyter image.
SOMEBODY = r"(?:home|Users)/(?!somebody\b|jovyan\b)"
HOME = rf"(?<![\w.])/(?:work/|farm/|root/|{SOMEBODY})\w"
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def undocumented(source: str) -> Iterator[str]:
    """The module, and its public functions and classes, where they have no docstring."""
    tree = ast.parse(source)
    for node in [tree, *tree.body]:
        name = getattr(node, "name", "the module")
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, kinds) and name[0] != "_" and not ast.get_docstring(node):
            yield name


def tracked() -> list[Path]:
    """Every file in git that is text."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in names if path.is_file() and b"\0" not in path.read_bytes()]


@each_file
def test_everything_public_says_what_it_is(path):
    assert list(undocumented(path.read_text(encoding="utf-8"))) == []


def test_a_missing_docstring_is_seen():
    source = '"""A room."""\ndef told():\n    """Told."""\ndef untold(): ...\ndef _own(): ...'
    assert list(undocumented(source)) == ["untold"]
    assert list(undocumented("class Bare: ...")) == ["the module", "Bare"]


@each_file
def test_nothing_is_left_for_later(path):
    assert not re.search(LATER, path.read_text(encoding="utf-8"))


def test_what_is_left_for_later_is_seen():
    assert re.search(LATER, "# TO" + "DO: later")
    assert re.search(LATER, "raise NotImplementedError()")
    assert not re.search(LATER, 'raise NotImplementedError("a first derivative only")')


def test_no_file_names_a_path_of_one_machine():
    found = {}
    for path in tracked():
        if match := re.search(HOME, path.read_text(encoding="utf-8")):
            found[str(path.relative_to(ROOT))] = match[0]
    assert found == {}


def test_a_path_of_one_machine_is_seen():
    assert re.search(HOME, "see /ho" + "me/anna/x")
    assert re.search(HOME, "in '/wo" + "rk/x'")
    assert not re.search(
        HOME, "see notebooks/home/x, /home/somebody and https://example.org/home/x"
    )


def test_no_two_files_of_the_tests_have_one_name():
    """Outside of packages pytest knows a file by its name alone."""
    loose = (p for p in (ROOT / "tests").rglob("*.py") if not (p.parent / "__init__.py").exists())
    names = Counter(path.name for path in loose)
    assert [name for name, n in names.items() if n > 1 and name != "conftest.py"] == []
