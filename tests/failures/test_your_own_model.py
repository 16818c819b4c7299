"""A stranger's training from outside of the package: watched, replayed, repaired, proved."""

import inspect

import pytest
import torch

from labkit.bench import Bench
from labkit.failures import _stranger, your_own_model
from labkit.failures._outside import Folder
from labkit.watch.capsule import load

CAPSULE = "capsules/step000041.capsule"


@pytest.fixture
def bench():
    return Bench("your_own_model")


@pytest.fixture
def home():
    return your_own_model.folder()


@pytest.fixture
def watched(home):
    """The stranger's folder after the watch has stopped his training."""
    home.edit("train.py", your_own_model.WATCHED)
    home.told = home.run("python train.py")
    return home


def test_the_stranger_knows_nothing_of_the_lab():
    text = inspect.getsource(_stranger)
    assert "import labkit" not in text
    assert "from labkit" not in text


def test_his_training_ends_with_every_parameter_lost(home):
    told = home.run("python train.py")
    assert "step 40  loss 0.23\nstep 50  loss nan" in told
    assert told.endswith("done; 4 of 4 parameters are not finite")


def test_the_guides_check_raises_when_all_is_lost(home):
    check = "        if torch.isnan(loss):\n            raise RuntimeError(lost(model))\n"
    count = "def lost(model):\n    return sum(not p.isfinite().all() for p in model.parameters())"
    home.edit("train.py", {"        if step % 10": f"{check}        if step % 10"})
    home.edit("train.py", {"def main": f"{count}\n\n\ndef main"})
    assert home.run("python train.py").endswith("step 40  loss 0.23\nRuntimeError: 4")


def test_the_watch_stops_before_the_optimizer_and_names_the_line(watched):
    report = load(watched.path / CAPSULE).report
    assert "Blowup: step 41: not finite: gradient of words.weight (nan)" in watched.told
    assert watched.names() == [CAPSULE, "train.py"]
    assert report.culprit.place == "train.py:16"
    assert report.culprit.index == (5, 0)
    line = watched.show("train.py").splitlines()[report.culprit.line - 1]
    assert line.strip() == report.culprit.source
    assert "torch.softmax" in line


def test_a_replay_has_the_same_bits_and_after_the_repair_the_step_runs_well(watched, bench):
    assert watched.run(f"labkit replay {CAPSULE}").endswith("\nreproduced to the bit")
    watched.edit("train.py", {"weights = attend(": "weights = chosen_away("})
    repair = bench.source("chosen away")
    watched.edit("train.py", {"class Reader": f"{repair}\n\nclass Reader"})
    watched.edit("train.py", {"from torch import nn": "from torch import Tensor, nn"})
    assert watched.run("python train.py").endswith("done; 0 of 4 parameters are not finite")
    told = watched.run(f"labkit replay {CAPSULE}")
    assert "not reproduced: the step ran well when it was run again" in told


def test_a_step_that_reads_what_is_not_kept_says_so(home):
    home.edit("train.py", your_own_model.COUNTED)
    told = home.run("python train.py")
    assert "Blowup: step 6" in told
    assert "not reproduced: the step ran well when it was run again" in told


def test_what_is_finite_and_wrong_passes_the_watch_but_not_the_bench(home, bench):
    home.edit("train.py", your_own_model.LOWEST)
    assert home.run("python train.py").endswith("done; 0 of 4 parameters are not finite")
    assert home.names() == ["train.py"]
    assert bench.turn("wrong").verdict == "wrong"
    assert not bench.reading.report.harmed


def test_cleaning_up_afterwards_saves_the_loss_and_not_the_gradients(bench):
    reading = bench.turn("broken", attend="nan_to_num")
    assert reading.verdict == "nan"
    assert reading.value == pytest.approx(reading.reference, rel=your_own_model.TRUE)
    assert [f.name for f in reading.report.harmed] == ["words.weight", "query.weight"]


def test_the_culprit_lies_in_the_strangers_file(bench):
    culprit = bench.turn("broken").culprit
    assert culprit.place == "train.py:14"
    assert culprit.op == "_softmax"


def test_the_bench_leaves_random_numbers_and_the_strangers_module_alone(bench):
    before = torch.get_rng_state()
    attend = your_own_model._train().attend
    bench.turn("repaired")
    assert torch.equal(torch.get_rng_state(), before)
    assert your_own_model._train().attend is attend


def test_a_folder_says_what_does_not_fit():
    folder = Folder(a="x = 1\nx = 1\n")
    with pytest.raises(ValueError, match=r"expected 'x = 1' once; it is there 2x"):
        folder.edit("a.py", {"x = 1": "x = 2"})
    assert folder.edit("a.py", {"x = 1\nx": "x = 1\n\ny"}) == "-x = 1\n+y = 1"
    assert folder.show("a.py", "missing") == ""
    assert folder.run("python a.py") == ""


def test_a_folder_is_gone_with_its_owner():
    folder = Folder(a="")
    path = folder.path
    del folder
    assert not path.exists()
