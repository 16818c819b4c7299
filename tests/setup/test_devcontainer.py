"""The dev container sets up what everybody else sets up, on the tested Python."""

import json

import yaml

from bootstrap import ROOT, install, venv

CONTAINER = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())


def test_it_has_the_tested_python():
    steps = WORKFLOW["jobs"]["test"]["steps"]
    tested = next(
        s["with"]["python-version"] for s in steps if "python-version" in s.get("with", {})
    )
    assert f"python:{tested}-" in CONTAINER["image"]


def test_it_takes_the_small_build_of_torch():
    assert CONTAINER["containerEnv"] == {"LAB_TORCH_INDEX": install.CPU_INDEX}


def test_it_is_set_up_by_the_lab_s_own_command():
    assert CONTAINER["updateContentCommand"] == "make setup"


def test_it_installs_the_system_packages_of_ci():
    ci = (ROOT / ".ci" / "run").read_text()
    for package in ("make", "chromium", "fonts-dejavu"):
        assert package in ci
        assert f" {package}" in CONTAINER["onCreateCommand"]


def test_the_editor_finds_the_environment():
    path = CONTAINER["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert path == "${containerWorkspaceFolder}" + f"/{venv.VENV.name}/bin/python"
