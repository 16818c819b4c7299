"""One command for everybody: CI, the workflow and the learner all run `make test`."""

import re
import subprocess
import sys

import pytest
import yaml

from bootstrap import ROOT, commands, install

MAKEFILE = (ROOT / "Makefile").read_text()
CI = (ROOT / ".ci" / "run").read_text()
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
# `here` is conda's own way to open the lab, for computers without make.
TARGETS = {name: do.__doc__ for name, do in commands.COMMANDS.items() if name != "here"}
STEPS = WORKFLOW["jobs"]["test"]["steps"]


def recipe(target):
    return re.search(rf"^{target}: ## .+\n\t(.+)$", MAKEFILE, re.MULTILINE)[1]


@pytest.mark.parametrize("target", TARGETS)
def test_each_command_has_a_target_that_hands_over_to_it(target):
    assert recipe(target) == f"@$(PYTHON) lab.py {target} $(ARGS)"


def test_a_target_works_although_a_folder_has_its_name():
    # `site` makes a folder `site`: without .PHONY the second `make site` would do nothing
    phony = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)[1].split()
    assert {*phony} == {"help", *TARGETS}


def test_make_and_the_entry_describe_each_command_in_the_same_words():
    said = dict(re.findall(r"^([a-z]+): ## (.+)$", MAKEFILE, re.MULTILINE))
    del said["help"]
    assert said == TARGETS


def test_make_alone_lists_the_targets():
    said = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(f"make {name}" in said.stdout for name in TARGETS)


def test_ci_ends_with_make_test():
    assert CI.rstrip().endswith("exec make test")
    assert 'export LAB_TORCH_INDEX="${LAB_TORCH_INDEX-}"' in CI
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)


def test_workflow_runs_the_same_script_on_the_tested_python():
    assert [step["run"] for step in STEPS if "run" in step] == ["bash .ci/run"]
    versions = [s["with"]["python-version"] for s in STEPS if "python-version" in s.get("with", {})]
    assert versions == ["3.11"]
    assert WORKFLOW["jobs"]["test"]["env"] == {"LAB_TORCH_INDEX": install.CPU_INDEX}


def test_tree_is_linted_and_formatted():
    for arguments in (["check", "--quiet"], ["format", "--check", "--quiet"]):
        command = [sys.executable, "-m", "ruff", *arguments, "."]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
