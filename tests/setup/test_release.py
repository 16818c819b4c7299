"""One version, in every file that names it."""

import re

import yaml

import labkit
from bootstrap import ROOT


def test_citation_has_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == labkit.__version__
    assert citation["license"] == "MIT"


def test_changelog_begins_with_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", text, re.MULTILINE)[1] == labkit.__version__
