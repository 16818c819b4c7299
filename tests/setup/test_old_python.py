"""What Pythons say that cannot run the lab: too old ones, and those without venv."""

import ast
import importlib.util
import shutil
import subprocess
import sys

import pytest

from bootstrap import ROOT, Stop, venv

OLD_PYTHONS = [f"python{v}" for v in ("2.7", "3.6", "3.7", "3.8", "3.9", "3.10")]
LATER_SYNTAX = (ast.JoinedStr, ast.NamedExpr, ast.AnnAssign, ast.AsyncFunctionDef, ast.Match)
# By its path: among the tests there are other modules of this name.
SPEC = importlib.util.spec_from_file_location("entry", ROOT / "lab.py")
lab = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(lab)


def test_entry_has_no_syntax_that_old_pythons_lack():
    tree = ast.parse((ROOT / "lab.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, LATER_SYNTAX)]
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert not [f for f in functions if f.returns or any(a.annotation for a in f.args.args)]


def test_old_pythons_of_this_computer_say_that_they_are_too_old():
    found = [name for name in OLD_PYTHONS if works(name)]
    if not found:
        pytest.skip("no Python older than 3.11 here to try it with")
    for name in found:
        command = [shutil.which(name), "-B", str(ROOT / "lab.py"), "help"]
        result = subprocess.run(command, env={"PATH": ""}, capture_output=True, text=True)
        assert result.returncode == 1
        assert "needs 3.11 or newer" in result.stderr


def works(name):
    path = shutil.which(name)
    return path and not subprocess.run([path, "-c", ""], capture_output=True).returncode


def test_message_for_an_old_python_names_both_versions_and_the_way_out():
    said = lab.too_old((3, 9, 2))
    assert "Python 3.9;" in said
    assert "3.11 or newer" in said
    assert "make lab PYTHON=python3.11" in said


def test_old_python_goes_on_with_a_newer_one(monkeypatch):
    called = []
    monkeypatch.setattr(lab.sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(lab, "runs", lambda name: name == "python3.12")
    monkeypatch.setattr(lab.subprocess, "call", lambda command: called.append(command) or 7)
    assert lab.main(["lab"]) == 7
    assert called == [["python3.12", str(ROOT / "lab.py"), "lab"]]


def test_name_without_a_working_python_is_no_python():
    assert not lab.runs("no-such-python")
    assert not lab.runs("false")
    assert lab.runs(sys.executable)


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_missing_module_is_named_with_the_package_that_has_it(missing, monkeypatch, tmp_path):
    found = venv.importlib.util.find_spec
    monkeypatch.setattr(
        venv.importlib.util, "find_spec", lambda name: None if name == missing else found(name)
    )
    with pytest.raises(Stop, match=f"'{missing}' is missing") as stop:
        venv.make(tmp_path / "new")
    assert "apt-get install python3-venv" in str(stop.value)
    assert not (tmp_path / "new").exists()
