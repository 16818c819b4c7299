"""The lock is exact, fits pyproject.toml, and holds nothing of one machine."""

import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bootstrap import ROOT, lock, relock

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = lock.read()
EXACT = re.compile(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*")
# Built from parts, so that this file does not find itself.
CPU_BUILD = re.compile(r"torch[=<>~! ]+[0-9.]+" + re.escape("+" + "cpu"))
LAB_ONLY = {canonicalize_name(pin.partition("==")[0]) for pin in LOCK.lab}


def version(pins, requirement):
    named = dict(pin.split("==") for pin in pins)
    return {canonicalize_name(n): v for n, v in named.items()}[canonicalize_name(requirement.name)]


def test_every_pin_is_exact():
    assert [pin for pin in LOCK.pins("tests") if not EXACT.fullmatch(pin)] == []


def test_no_package_is_pinned_twice():
    names = [canonicalize_name(pin.partition("==")[0]) for pin in LOCK.pins("tests")]
    assert sorted(names) == sorted(set(names))


def test_torch_is_first_and_without_its_build():
    assert LOCK.lab[0] == LOCK.torch == relock.TORCH == "torch==2.13.0"


def test_both_sections_are_sorted():
    assert relock.tidy(list(LOCK.lab)) == LOCK.lab
    assert relock.tidy(list(LOCK.tests)) == LOCK.tests


def test_text_survives_parsing_and_rendering():
    text = lock.LOCK.read_text(encoding="utf-8")
    assert lock.render(lock.parse(text)) == text


@pytest.mark.parametrize("line", PROJECT["dependencies"])
def test_lab_has_each_dependency_within_its_range(line):
    requirement = Requirement(line)
    assert version(LOCK.lab, requirement) in requirement.specifier


@pytest.mark.parametrize("line", PROJECT["optional-dependencies"]["dev"])
def test_tests_have_each_dependency_within_its_range(line):
    requirement = Requirement(line)
    assert version(LOCK.pins("tests"), requirement) in requirement.specifier


def test_lab_is_bare():
    """jupytext adds buttons to JupyterLab; scanpy would bring a stack that only one file needs."""
    assert not LAB_ONLY & {"jupytext", "nbdime", "pytest", "playwright", "scanpy", "pandas"}


def test_frozen_lines_become_pins_for_every_platform():
    frozen = [
        "zlib==1.0",
        "Jinja2==3.1.6",
        "torch==2.13.0" + "+" + "cpu",
        "nvidia-cublas-cu12==12.8",
        "triton==3.7.1",
        "pip==23.2.1",
        "-e /home/somebody/labkit",
        "labkit @ file:///home/somebody/labkit",
    ]
    assert relock.tidy(frozen) == ("torch==2.13.0", "Jinja2==3.1.6", "zlib==1.0")


def test_no_file_asks_for_one_build_of_torch():
    names = ["*.toml", "*.lock", "*.yml", "*.txt", "*.cfg", "Makefile"]
    files = [f for name in names for f in ROOT.glob(name)]
    files += [*(ROOT / ".ci").glob("*"), *(ROOT / ".github").rglob("*.yml")]
    files += [f for folder in ("bootstrap", "labkit") for f in (ROOT / folder).rglob("*.py")]
    assert lock.LOCK in files
    assert [f.name for f in files if CPU_BUILD.search(f.read_text(encoding="utf-8"))] == []


def test_installed_packages_agree_with_each_other():
    """`pip check` on the environment that runs this."""
    command = [sys.executable, "-m", "pip", "check", "--disable-pip-version-check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
