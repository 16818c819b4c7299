"""A capsule holds the step, says what it needs, and says when it does not reproduce."""

import subprocess
import sys
import textwrap
from dataclasses import dataclass
from enum import Enum

import numpy as np
import pytest
import torch
from torch import nn
from watch_training import batches, made, same

from labkit import watch
from labkit.probes.report import Report
from labkit.watch import Blowup, cli
from labkit.watch.capsule import load
from labkit.watch.plain import decode, encode, missing

PROGRAM = """
import sys
import torch
from torch import nn
from labkit import watch

def build():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    return model, torch.optim.Adam(model.parameters(), 1e-2)

def train():
    model, optimizer = build()
    generator = torch.Generator().manual_seed(1)
    with watch(model, optimizer, folder=FOLDER) as watched:
        for batch in watched.over(torch.randn(30, 8, 3, generator=generator)):
            optimizer.zero_grad()
            loss = torch.log(model(batch) * FACTOR).square().mean()  # of what may be negative
            loss.backward()
            optimizer.step()

def stepping():
    model, optimizer = build()
    def step(batch):
        optimizer.zero_grad()
        loss = torch.log(model(batch)).square().mean()
        loss.backward()
        optimizer.step()
    return watch(model, optimizer, step=step)

def nothing():
    return None

def wider():
    model = nn.Linear(5, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for batch in watch(model, optimizer).over([torch.ones(1, 5)]):
        pass
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A training in a module of its own; returns its name."""

    def write(name, factor="1.0", end=""):
        text = PROGRAM.replace("FOLDER", repr(str(tmp_path / "capsules"))).replace("FACTOR", factor)
        (tmp_path / f"{name}.py").write_text(text + end, encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return write


@pytest.fixture
def capsule(program):
    """The capsule of a training that blew up."""
    module = __import__(program("blows_up"))
    with pytest.raises(Blowup) as caught:
        module.train()
    return caught.value.trigger.capsule


def test_everything_is_in_it_and_no_code(capsule):
    content = torch.load(capsule, weights_only=True)
    assert {"batch", "state", "randomness", "versions", "report"} <= content.keys()
    read = load(capsule)
    assert isinstance(read.report, Report)
    assert read.report.culprit.op == "log"
    assert str(read.report) in str(read)
    assert read.versions["torch"] == torch.__version__
    assert read.program == {"step": "blows_up:train", "argv": []}
    assert not list(capsule.parent.glob("*.tmp"))


def test_replay_reproduces_to_the_bit(capsule, capsys):
    assert cli.main(["replay", str(capsule)]) == cli.SAME
    told = capsys.readouterr().out
    assert told.count("nan: log, blows_up.py:") == 2  # as recorded, and now
    assert "symptom  a NaN reached the loss" in told
    assert told.endswith("reproduced to the bit\n")


def test_a_function_that_returns_a_watch_will_do(capsule, capsys):
    assert cli.main(["replay", str(capsule), "--step", "blows_up:stepping"]) == cli.OTHER
    told = capsys.readouterr().out  # the same numbers, at another line of the program
    assert "not reproduced: the culprit was log, blows_up.py:" in told
    assert "to the bit" not in told


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        ("1.5", "not reproduced: the culprit was log, blows_up.py:18, in train, input down to"),
        ("0.0 + 2.0", "not reproduced: the step ran well when it was run again"),
    ],
)
def test_another_program_does_not_reproduce_and_that_is_said(
    capsule, program, capsys, factor, words
):
    program("changed", factor)
    assert cli.main(["replay", str(capsule), "--step", "changed:train"]) == cli.OTHER
    told = capsys.readouterr().out
    assert words in told
    assert "reproduced to the bit\n" not in told.replace(words, "")


def test_a_capsule_is_a_test_of_the_repair(capsule, program, capsys):
    replay = ["replay", str(capsule), "--expect", "healthy", "--step"]
    assert cli.main([*replay, "blows_up:train"]) == cli.OTHER  # it still dies
    assert "reproduced to the bit\n" in capsys.readouterr().out
    program("repaired", "0.0 + 2.0")
    assert cli.main([*replay, "repaired:train"]) == cli.SAME
    told = capsys.readouterr().out
    assert told.endswith("repaired: the step ran well\n")
    assert "not reproduced" not in told
    program("halted", "1.0 + 9.0).clamp(5.0, 6.0")  # finite, and no gradient passes
    assert cli.main([*replay, "halted:train"]) == cli.OTHER
    assert capsys.readouterr().out.endswith("finite, but not healthy\n")
    assert cli.main(["replay", str(capsule), "--step", "repaired:train"]) == cli.OTHER
    told = capsys.readouterr().out
    assert told.endswith("what a repair has done, replay it with --expect healthy\n")


def test_other_versions_are_named(capsule, capsys, tmp_path):
    content = torch.load(capsule, weights_only=True)
    content["versions"]["torch"] = "1.0"
    torch.save(content, tmp_path / "old.capsule")
    cli.main(["replay", str(tmp_path / "old.capsule")])
    assert f"torch was 1.0 and is {torch.__version__}: bits may differ" in capsys.readouterr().out


def test_a_script_is_run_again_with_its_arguments(program, tmp_path):
    name = program(
        "script",
        end="\nif __name__ == '__main__':\n    assert sys.argv[1:] == ['--fast']\n    train()\n",
    )
    run = [sys.executable, str(tmp_path / f"{name}.py"), "--fast"]
    assert subprocess.run(run, capture_output=True, check=False).returncode == 1
    (file,) = (tmp_path / "capsules").iterdir()
    assert load(file).program == {"step": str(tmp_path / f"{name}.py"), "argv": ["--fast"]}
    done = subprocess.run(
        [sys.executable, "-m", "labkit.watch.cli", "replay", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == cli.SAME, done.stderr
    assert done.stdout.endswith("reproduced to the bit\n")


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("blows_up:absent", "expected module:function; got blows_up:absent"),
        ("absent_module:train", "No module named 'absent_module'"),
        ("absent.py", "there is no absent.py"),
        ("blows_up:nothing", "expected a program that watches a batch"),
        ("blows_up:wider", r"expected 0.bias of shape (4,); the program has None"),
    ],
)
def test_a_program_that_does_not_fit(capsule, capsys, step, words):
    assert cli.main(["replay", str(capsule), "--step", step]) == cli.UNUSABLE
    assert words in capsys.readouterr().err


def test_a_capsule_of_a_notebook_asks_for_its_program(capsule, capsys, tmp_path):
    content = torch.load(capsule, weights_only=True)
    content["program"]["step"] = ""
    torch.save(content, tmp_path / "cell.capsule")
    assert cli.main(["replay", str(tmp_path / "cell.capsule")]) == cli.UNUSABLE
    assert "give --step. The capsule holds data and no code" in capsys.readouterr().err


def test_files_that_are_no_capsule(capsule, capsys, tmp_path):
    (tmp_path / "cut").write_bytes(capsule.read_bytes()[:2000])
    torch.save({"a": 1}, tmp_path / "other")
    (tmp_path / "text").write_text("hello", encoding="utf-8")
    for name in ("cut", "other", "text", "absent"):
        assert cli.main(["replay", str(tmp_path / name)]) == cli.UNUSABLE
        assert name in capsys.readouterr().err


def test_one_capsule_for_each_culprit(tmp_path):
    model, optimizer = made()
    given = batches(8, bad=2)
    given[4] = given[2]
    folder = tmp_path / "kept"
    for _ in range(2):
        with watch(model, optimizer, on_trigger="skip", folder=folder) as watched:
            for batch in watched.over(given):
                optimizer.zero_grad()
                model(batch).square().mean().backward()
                optimizer.step()
        assert [t.capsule is not None for t in watched.triggers] == [True, False]
    assert sorted(p.name for p in folder.iterdir()) == [
        "step000002-2.capsule",
        "step000002.capsule",
    ]


def test_a_folder_that_cannot_be_written_hides_no_alarm(tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    model, optimizer = made()
    watched = watch(model, optimizer, on_trigger="skip", folder=tmp_path / "file")
    for batch in watched.over(batches(3, bad=1)):
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
    watched.close()
    assert watched.triggers[0].report.culprit.name == "batch"
    assert watched.triggers[0].remarks[0].startswith("no capsule: ")


@dataclass(frozen=True)
class Cells:
    counts: torch.Tensor
    names: tuple[str, ...]
    share: np.ndarray


class Kind(Enum):
    BLOOD = "blood"


def test_values_come_back_as_they_were(tmp_path):
    view = torch.arange(1000.0)[3:5]
    tree = {
        "cells": Cells(view, ("a", "b"), np.array([0.5, 2.0])),
        (1, 2): [Kind.BLOOD, None, True, 3, 2**80, 0.25, np.float32(1.5), torch.float16],
    }
    torch.save(encode(tree), tmp_path / "tree")
    assert (tmp_path / "tree").stat().st_size < 4000  # a view does not bring its storage along
    again = decode(torch.load(tmp_path / "tree", weights_only=True))
    assert same([again["cells"].counts], [view])
    assert again["cells"].names == ("a", "b")
    assert again["cells"].share.tolist() == [0.5, 2.0]
    assert again[1, 2] == tree[1, 2]
    assert type(again[1, 2][6]) is np.float32


def test_what_cannot_be_kept_is_named():
    tree = encode(({"graph": nn.Linear(1, 1)}, object()))
    assert missing(tree) == [
        "batch[0]['graph'] is a torch.nn.modules.linear:Linear",
        "batch[1] is a builtins:object",
    ]


def test_a_file_makes_no_class_that_is_not_plain_data():
    for name in ("os:system", "subprocess:Popen", "watch_training:Noisy"):
        with pytest.raises(ValueError, match="expected a dataclass, named tuple or enum"):
            decode({"labkit kind": "made", "is": name, "fields": {}})
    cells = encode(Cells(torch.ones(1), (), np.ones(1)))
    with pytest.raises(ValueError, match="Cells: expected a dataclass"):
        decode(cells, rooms=("labkit.",))


def test_the_console_script_is_named_in_the_project():
    import tomllib
    from importlib import import_module
    from pathlib import Path

    text = Path(__file__).parents[2].joinpath("pyproject.toml").read_text(encoding="utf-8")
    module, _, name = tomllib.loads(text)["project"]["scripts"]["labkit"].partition(":")
    assert getattr(import_module(module), name) is cli.main


def test_help_says_what_is_needed(capsys):
    with pytest.raises(SystemExit):
        cli.main(["replay", "--help"])
    assert "started again" in " ".join(textwrap.dedent(capsys.readouterr().out).split())
