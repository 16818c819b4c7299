"""The commands: listed, described, and honest about what stopped them."""

import pytest

from bootstrap import Stop, commands, copies


def test_unknown_command_lists_the_known_ones(capsys):
    assert commands.run(["tset"]) == 2
    said = capsys.readouterr().out
    assert all(f"lab.py {name} " in said for name in commands.COMMANDS)


def test_stop_is_said_without_a_traceback(monkeypatch, capsys):
    def stopped(extra):
        raise Stop("first line\nsecond line")

    monkeypatch.setitem(commands.COMMANDS, "lab", stopped)
    assert commands.run(["lab"]) == 1
    assert capsys.readouterr().err == "lab: first line\nlab: second line\n"


def test_clean_keeps_the_learners_notebooks(monkeypatch, tmp_path):
    monkeypatch.setattr(commands, "ROOT", tmp_path)
    for name in (".venv", copies.MY_LAB.name, ".ruff_cache"):
        (tmp_path / name).mkdir()
    commands.clean([])
    assert [p.name for p in tmp_path.iterdir()] == ["my_lab"]


@pytest.mark.parametrize(
    ("extra", "cores", "expected"),
    [
        ([], 2, "2"),
        (["-k", "panel"], 64, "4"),
        ([], 1, None),
        (["--pdb"], 2, None),
        (["-n", "7"], 2, None),
    ],
)
def test_the_suite_runs_on_the_cores_that_are_there(extra, cores, expected):
    options = commands.spread(extra, cores)
    assert (options[1] if options else None) == expected
    assert not options or options[2:] == ("--dist", "loadfile")
