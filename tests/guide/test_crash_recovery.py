"""`train_with_crash_recovery` beside the guide's original, at each of its blind spots."""

import math
import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from originals import original
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from labkit.guide import train_with_crash_recovery
from labkit.guide.train_with_crash_recovery import TrainingCrashed, plain
from labkit.training.checkpoint import load_checkpoint

theirs = original("train_with_crash_recovery")


class Net(nn.Module):
    """Draws noise, as a VAE does; `sick` turns its gradient into NaN while the loss is finite."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)

    def forward(self, x):
        noise = torch.randn(3) * random.random() * np.random.rand()
        return (self.norm(self.layer(x)) + noise).square().mean()


def loss_of(model, batch):
    x, kind = batch["x"], batch["kind"]
    loss = model(x)
    if kind == "inf":
        return loss * math.inf
    if kind == "nan gradient":
        return loss + (model.layer.weight.sum() * 0).sqrt()
    if kind == "refused":
        raise FloatingPointError("expected finite values")
    return loss


def batches(count=12, bad=(), kind="nan gradient"):
    draw = torch.Generator().manual_seed(1)
    return [
        {"x": torch.randn(4, 3, generator=draw), "kind": kind if i in bad else "well", "number": i}
        for i in range(count)
    ]


def own_step(optimizer):
    """A train_step as the guide's loop needs it: it does everything, and returns the loss."""

    def step(model, batch):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def made():
    model = Net()
    return model, torch.optim.Adam(model.parameters(), 0.05)


def healthy(state) -> bool:
    return all(torch.as_tensor(v).isfinite().all() for v in state.values())


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_last_good_state_is_good():
    model, optimizer = made()
    step, loader = own_step(optimizer), batches(110, bad=[99])
    with pytest.raises(RuntimeError, match="训练崩溃"):
        theirs(model, loader, 1, step)
    poisoned = torch.load("last_good_state.pt")
    assert not healthy(poisoned["model"])  # saved at batch 100, poisoned at 99
    model, optimizer = made()
    with pytest.raises(TrainingCrashed, match=r"gradient not finite: layer\.weight"):
        train_with_crash_recovery(model, loader, loss_of, optimizer, path="ours.pt", every=10)
    state = load_checkpoint("ours.pt")
    assert healthy(state["parts"]["model"])
    assert state["batch"] == 90
    assert healthy(model.state_dict())


def test_the_crashing_batch_is_kept_apart():
    model, optimizer = made()
    loader = batches(60, bad=[50])
    with pytest.raises(RuntimeError):
        theirs(model, loader, 1, own_step(optimizer))
    assert torch.load("last_good_state.pt")["batch"]["number"] == 0
    model, optimizer = made()
    with pytest.raises(TrainingCrashed):
        train_with_crash_recovery(model, loader, loss_of, optimizer, path="ours.pt")
    crash = torch.load("ours.pt.crash", weights_only=True)
    assert crash["state"]["crashing_batch"]["number"] == 50
    assert "gradient not finite" in crash["state"]["reason"]


def test_the_crash_file_replays_the_crash():
    model, optimizer = made()
    loader = batches(12, bad=[7], kind="inf")
    with pytest.raises(TrainingCrashed, match="loss is inf"):
        train_with_crash_recovery(model, loader, loss_of, optimizer, path="ours.pt")
    crash = load_checkpoint("ours.pt.crash")
    other, _ = made()
    other.load_state_dict(crash["parts"]["model"])
    now = model.state_dict()
    assert all(torch.equal(value, now[name]) for name, value in other.state_dict().items())
    assert not loss_of(other, crash["crashing_batch"]).isfinite()


def train(n_epochs, path, resume=False, stop=None, loader=None):
    """One run over a shuffled loader; `stop` cuts the power at that batch."""
    model, optimizer = made()
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.5)
    data = TensorDataset(torch.randn(40, 3, generator=torch.Generator().manual_seed(1)))
    loader = loader or DataLoader(data, 4, shuffle=True)
    count = iter(range(10_000))

    def step(model, batch):
        if next(count) == stop:
            raise KeyboardInterrupt
        return model(batch[0])

    def go():
        return train_with_crash_recovery(
            *(model, loader, step, optimizer),
            n_epochs=n_epochs, path=path, every=4, resume=resume, also={"scheduler": scheduler},
        )  # fmt: skip

    if stop is None:
        return go(), model
    with pytest.raises(KeyboardInterrupt):
        go()
    return None, model


@pytest.mark.parametrize("stop", [2, 7, 10, 13, 19, 25, 29])
def test_a_resumed_run_is_the_same_run_to_the_bit(stop):
    whole, model = train(3, "whole.pt")
    train(3, "cut.pt", stop=stop)
    rest, other = train(3, "cut.pt", resume=True)
    assert rest.losses == whole.losses
    assert len(whole.losses) == 30
    states = zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)


def test_a_finished_run_can_be_made_longer():
    whole, _ = train(3, "whole.pt")
    train(1, "long.pt")
    longer, _ = train(3, "long.pt", resume=True)
    assert longer.losses == whole.losses


def test_a_loader_with_a_generator_of_its_own():
    def loader():
        data = TensorDataset(torch.randn(40, 3, generator=torch.Generator().manual_seed(1)))
        return DataLoader(data, 4, shuffle=True, generator=torch.Generator().manual_seed(9))

    whole, _ = train(2, "whole.pt", loader=loader())
    train(2, "cut.pt", stop=14, loader=loader())
    rest, _ = train(2, "cut.pt", resume=True, loader=loader())
    assert rest.losses == whole.losses


def test_the_originals_file_is_not_enough_to_go_on():
    model, optimizer = made()
    theirs(model, batches(3), 1, own_step(optimizer))
    assert torch.load("last_good_state.pt").keys() == {"model", "batch", "epoch"}


def test_a_crash_in_the_save_leaves_the_last_file(monkeypatch):
    model, optimizer = made()
    train_with_crash_recovery(model, batches(3), loss_of, optimizer, path="ours.pt")
    before = load_checkpoint("ours.pt")
    monkeypatch.setattr("os.fsync", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_with_crash_recovery(model, batches(3), loss_of, optimizer, path="ours.pt")
    assert load_checkpoint("ours.pt")["losses"] == before["losses"]


def test_an_infinite_loss_does_not_reach_the_parameters():
    model, optimizer = made()
    loader = batches(5, bad=[3], kind="inf")
    theirs(model, loader[:4], 1, own_step(optimizer))  # silent: isnan(inf) is False
    assert not healthy(model.state_dict())
    model, optimizer = made()
    with pytest.raises(TrainingCrashed):
        train_with_crash_recovery(model, loader, loss_of, optimizer)
    assert healthy(model.state_dict())


def test_a_number_is_no_loss():
    model, optimizer = made()
    with pytest.raises(TypeError):
        theirs(model, batches(2), 1, lambda model, batch: 1.0)
    with pytest.raises(TypeError, match="expected the loss, a tensor with its graph"):
        train_with_crash_recovery(model, batches(2), lambda model, batch: 1.0, optimizer)


def test_other_errors_pass_through_without_advice(capsys):
    def wrong(model, batch):
        return model(batch["x"][:, :2])

    model, optimizer = made()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        theirs(model, batches(2), 1, wrong)
    assert "加载最后正常状态" in capsys.readouterr().out
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
        train_with_crash_recovery(model, batches(2), wrong, optimizer)
    assert not isinstance(caught.value, TrainingCrashed)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", ["inf", "nan gradient", "refused"])
def test_some_bad_batches_can_be_skipped(kind):
    model, optimizer = made()
    loader = batches(12, bad=[4, 5, 9], kind=kind)
    run = train_with_crash_recovery(model, loader, loss_of, optimizer, skip=2)
    assert [i for i, loss in enumerate(run.losses) if loss is None] == [4, 5, 9]
    assert run.skipped == 3
    with pytest.raises(TrainingCrashed):  # not for ever: three in a row
        train_with_crash_recovery(model, batches(9, [3, 4, 5], kind), loss_of, optimizer, skip=2)


def test_a_poisoned_state_is_not_saved():
    model, optimizer = made()

    def poison(optimizer, args, kwargs):
        if len(run) == 5:
            model.norm.running_var[0] = math.inf
        run.append(1)

    run = []
    optimizer.register_step_post_hook(poison)
    with pytest.raises(TrainingCrashed, match=r"parts.model.norm.running_var"):
        train_with_crash_recovery(model, batches(12), loss_of, optimizer, path="ours.pt", every=4)
    assert load_checkpoint("ours.pt")["batch"] == 4


@dataclass
class Cells:
    counts: np.ndarray
    names: list


def test_any_batch_becomes_plain():
    batch = (Cells(np.arange(3), ["a"]), {1: torch.ones(2)}, np.array(["x"]), object(), None, 1.5)
    torch.save(plain(batch), "batch.pt")
    back = torch.load("batch.pt", weights_only=True)
    assert back[0]["names"] == ["a"]
    assert back[0]["counts"].tolist() == [0, 1, 2]
    assert back[1]["1"].tolist() == [1, 1]
    assert back[2] == ["x"]
    assert back[3].startswith("<object")
