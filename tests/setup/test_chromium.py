"""Chromium: where it is looked for, and what its absence means here and in CI."""

import shutil
import subprocess
import sys

import pytest

from bootstrap import ROOT, chromium, commands


@pytest.fixture
def browser(tmp_path):
    path = tmp_path / "chromium-browser"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_chromium_is_found_on_the_path_or_by_its_variable(browser):
    assert chromium.find({"PATH": str(browser.parent)}) == str(browser)
    assert chromium.find({"PATH": "", "LAB_CHROMIUM": str(browser)}) == str(browser)


def test_missing_chromium_is_none_and_a_wrong_path_is_refused():
    assert chromium.find({"PATH": "/nowhere"}) is None
    with pytest.raises(ValueError, match="'/nowhere/chrome', which is no program"):
        chromium.find({"PATH": "", "LAB_CHROMIUM": "/nowhere/chrome"})


@pytest.mark.parametrize(("ci", "must"), [("true", True), ("1", True), ("", False), ("no", False)])
def test_only_ci_insists_on_chromium(ci, must):
    assert chromium.must_be_there({"CI": ci}) is must


@pytest.mark.parametrize(("ci", "outcome"), [("true", "errors"), ("", "skipped")])
def test_browser_test_without_chromium(ci, outcome, pytester_run):
    result = pytester_run(CI=ci, PATH="/nowhere")
    assert f"1 {outcome.removesuffix('s')}" in result.stdout
    assert "apt-get install chromium" in result.stdout


@pytest.fixture
def pytester_run(tmp_path):
    """Runs one test that asks for `chromium` in a pytest of its own."""
    shutil.copytree(ROOT / "bootstrap", tmp_path / "bootstrap")
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    (tmp_path / "conftest.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
    )
    (tmp_path / "tests" / "test_page.py").write_text("def test_page(chromium): pass\n")

    def run(**variables):
        command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider"]
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)

    return run


@pytest.fixture
def without_browser(monkeypatch):
    """`make test` on a computer that has no Chromium; the suite itself ends with status 5."""
    monkeypatch.setattr(commands.chromium, "find", lambda: None)
    monkeypatch.setattr(commands.install, "ready", lambda level: None)
    monkeypatch.setattr(commands.venv, "call", lambda *arguments: 5)


def test_make_test_says_loudly_that_chromium_is_missing_and_goes_on(
    without_browser, monkeypatch, capsys
):
    monkeypatch.delenv("CI", raising=False)
    assert commands.run(["test"]) == 5
    assert "apt-get install chromium" in capsys.readouterr().out


def test_make_test_fails_in_ci_when_chromium_is_missing(without_browser, monkeypatch, capsys):
    monkeypatch.setenv("CI", "true")
    assert commands.run(["test"]) == 1
    assert "apt-get install chromium" in capsys.readouterr().err
