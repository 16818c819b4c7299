"""A checkpoint is whole or absent; a crash anywhere loses nothing and changes no bit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from labkit.cells.simulate import simulate
from labkit.models.vae import NBVAE
from labkit.training import checkpoint
from labkit.training.checkpoint import load_checkpoint, non_finite, save_checkpoint
from labkit.training.train import train_vae

ROOT = Path(__file__).resolve().parents[2]
BEFORE = ("before write", "after write", "after fsync", "before rename")
AFTER = ("after rename", "after directory fsync")


def state(value=1.0):
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.full((2, 2), value)}
    return {
        "model": {"w": torch.full((3,), value)},
        "optimizer": {"state": {0: moments}},
        "lr": 0.1,
    }


def test_what_is_saved_comes_back(tmp_path):
    path = tmp_path / "run.pt"
    save_checkpoint(path, state())
    loaded = load_checkpoint(path)
    assert torch.equal(loaded["model"]["w"], torch.ones(3))
    assert loaded["optimizer"]["state"][0]["exp_avg"].shape == (2, 2)
    assert loaded["lr"] == 0.1
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]


def test_the_old_file_is_whole_until_the_new_one_is(tmp_path):
    path, seen = tmp_path / "run.pt", {}
    save_checkpoint(path, state(1.0))

    def look(boundary):
        seen[boundary] = load_checkpoint(path)["lr"]

    save_checkpoint(path, state(2.0) | {"lr": 0.2}, boundary=look)
    assert seen == dict.fromkeys(BEFORE, 0.1) | dict.fromkeys(AFTER, 0.2)


def test_bytes_reach_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace
    kinds = {True: "fsync directory", False: "fsync file"}
    directory = os.stat(tmp_path).st_ino

    def recording_fsync(handle):
        calls.append(kinds[os.fstat(handle).st_ino == directory])
        fsync(handle)

    def recording_replace(source, target):
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "replace", recording_replace)
    save_checkpoint(tmp_path / "run.pt", state())
    assert calls == ["fsync file", "replace", "fsync directory"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_poisoned_state_never_replaces_a_good_one(tmp_path, bad):
    path = tmp_path / "run.pt"
    save_checkpoint(path, state())
    poisoned = state()
    poisoned["optimizer"]["state"][0]["exp_avg"][1, 1] = bad
    with pytest.raises(ValueError, match=r"NaN or Inf in \['optimizer.state.0.exp_avg'\]"):
        save_checkpoint(path, poisoned)
    with pytest.raises(ValueError, match="'lr'"):
        save_checkpoint(path, state() | {"lr": bad})
    assert torch.equal(load_checkpoint(path)["model"]["w"], torch.ones(3))


def test_non_finite_names_every_bad_leaf_and_no_good_one():
    tree = {"a": [1, "nan", None, float("nan")], "b": (torch.tensor([1, 2]), {"c": torch.inf})}
    assert non_finite(tree) == ["a.3", "b.1.c"]


def test_other_bytes_on_reading_back_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    save_checkpoint(path, state())
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read(self)[:-1] + b"?")
    with pytest.raises(OSError, match="read back other bytes"):
        save_checkpoint(path, state(2.0))
    assert torch.equal(load_checkpoint(path)["model"]["w"], torch.ones(3))


@pytest.mark.parametrize("kept", [0, 1, 10, 0.5, 0.9])
def test_a_cut_file_is_named(tmp_path, kept):
    path = tmp_path / "run.pt"
    save_checkpoint(path, state())
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"run\.pt: expected a whole checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [[1, 2], {"state": {}}, torch.ones(2)])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match="expected a whole checkpoint"):
        load_checkpoint(path)


class Trap:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_code_of_the_file_is_run(tmp_path):
    path, trace = tmp_path / "trap.pt", tmp_path / "it_ran"
    torch.save({"versions": checkpoint.VERSIONS, "state": Trap(trace)}, path)
    with pytest.raises(ValueError, match="expected a whole checkpoint"):
        load_checkpoint(path)
    assert not trace.exists()


def test_another_format_is_refused_and_another_torch_is_reported(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    monkeypatch.setattr(checkpoint, "VERSIONS", {"format": 1, "torch": "1.0"})
    save_checkpoint(path, state())
    monkeypatch.undo()
    with pytest.warns(UserWarning, match=r"saved by torch 1\.0; bits may differ"):
        load_checkpoint(path)
    monkeypatch.setattr(checkpoint, "VERSIONS", {"format": 2, "torch": "1.0"})
    with pytest.raises(ValueError, match="expected format 2; got 1"):
        load_checkpoint(path)


@pytest.fixture(scope="module")
def cells():
    return simulate(96, n_genes=20, seed=4)[0]


def fit(cells, path=None, **changes):
    model = NBVAE.for_cells(cells.train, 3, hidden=8)
    options = {"epochs": 4, "batch_size": 24, "checkpoint": path, "checkpoint_every": 5}
    return train_vae(model, cells, **(options | changes)), model


def test_writing_checkpoints_changes_no_bit_of_the_training(cells, tmp_path):
    (plain, _), (saved, _) = fit(cells), fit(cells, tmp_path / "run.pt")
    assert plain.losses == saved.losses


def test_a_finished_run_is_taken_over_without_a_step(cells, tmp_path):
    first, model = fit(cells, tmp_path / "run.pt")
    again, other = fit(cells, tmp_path / "run.pt")
    assert again.losses == first.losses
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_checkpoint_of_another_recipe_is_refused(cells, tmp_path):
    fit(cells, tmp_path / "run.pt")
    with pytest.raises(
        ValueError, match=r"expected a checkpoint of .*'lr': 0.01.* got .*'lr': 0.005"
    ):
        fit(cells, tmp_path / "run.pt", lr=0.01)


def test_a_run_with_skipped_steps_resumes_to_the_same_bits(cells, tmp_path, monkeypatch):
    """The crash comes while refusals are being counted, right before they lead to a way back."""
    from labkit.training import train

    whole = train.batch_loss
    steps = {"taken": 0}

    def spoiled(*args):
        steps["taken"] += 1
        return whole(*args) * (float("nan") if 7 < steps["taken"] <= 13 else 1.0)

    monkeypatch.setattr(train, "batch_loss", spoiled)
    plain, _ = fit(cells, tmp_path / "whole.pt", epochs=8)
    assert (plain.skipped, plain.rollbacks) == (6, 1)

    def crash(boundary):
        if boundary == "after rename" and steps["taken"] == 10:
            raise KeyboardInterrupt

    steps["taken"] = 0
    saving = lambda path, content: save_checkpoint(path, content, crash)  # noqa: E731
    monkeypatch.setattr(train, "save_checkpoint", saving)
    with pytest.raises(KeyboardInterrupt):
        fit(cells, tmp_path / "cut.pt", epochs=8)
    resumed, _ = fit(cells, tmp_path / "cut.pt", epochs=8)
    assert resumed.losses == plain.losses
    assert (resumed.skipped, resumed.rollbacks) == (6, 1)


def test_crashes_at_every_boundary_and_five_kills_resume_to_the_same_bits():
    command = [sys.executable, "-W", "error", "benchmarks/crash_safety.py", "--kills", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    crashes = [line for line in lines if ", save " in line or "half of the bytes" in line]
    assert len(crashes) == 2 * len(BEFORE + AFTER) + 1
    assert all(line.endswith("True") for line in lines[1:])


def test_the_crash_trials_notice_a_run_that_is_not_restored():
    """The trials themselves can fail: without the noise state the bits differ."""
    script = (
        "import sys; sys.path.insert(0, 'benchmarks'); import crash_safety as c\n"
        "from labkit.training.train import Run\n"
        "whole = Run.restore\n"
        "def forget(run, state):\n"
        "    noise = run.generator.get_state(); whole(run, state); run.generator.set_state(noise)\n"
        "Run.restore = forget\n"
        "sys.exit(c.main(0, 0, ('after rename',)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"save 3                 False" in done.stdout
