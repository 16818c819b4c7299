"""What a number leaves behind in a sum of losses, and ten ways out of the graph."""

import pytest
import torch

from labkit import check
from labkit.bench import Bench
from labkit.failures.item import FORMS, _cells, courses, exits, megabytes_logged, parts
from labkit.training.train import trained_vae


@pytest.fixture
def bench():
    return Bench("item")


def test_the_guide_is_wrong_backward_runs(bench):
    reading = bench.turn("broken")
    assert (reading.verdict, reading.culprit.op) == ("severed", "item")
    assert reading.report.error == ""
    words = {f.name: f.word for f in reading.report.parameters}
    assert {w for n, w in words.items() if n.startswith("decoder")} == {"none"}
    assert {w for n, w in words.items() if n.startswith("encoder")} == {"wrong"}
    assert reading.value == bench.turn("repaired").value


def test_what_is_left_is_the_gradient_of_the_kl():
    def gradient(total):
        model = trained_vae()
        total(*parts(model, _cells(64))).backward()
        return model.encoder.fc_mu.weight.grad

    assert torch.equal(gradient(FORMS["item"]), gradient(lambda reconstruction, kl: kl))


def test_with_no_tensor_left_it_is_refused():
    total = sum(part.item() for part in parts(trained_vae(), _cells(8)))
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.tensor(total).backward()


def test_a_list_of_numbers_trains_nothing_in_silence(bench):
    reading = bench.turn("all")
    assert reading.verdict == "severed"
    assert {fate.word for fate in reading.report.parameters} == {"none"}
    assert reading.report.error == ""


def test_without_the_reconstruction_the_model_forgets():
    paths = courses()
    assert paths["item"][0] == paths["tensors"][0]
    assert paths["tensors"][-1] < paths["tensors"][0]
    assert paths["item"][-1] - paths["item"][0] > 100  # measured 192 nats


def test_ten_ways_out_of_the_graph():
    found = exits()
    assert {name for name, fate in found.items() if fate == "alive"} == {
        "t * 1", "torch.stack([t])", "torch.as_tensor(t)", "t.softmax(-1)",
    }  # fmt: skip
    assert {name for name, fate in found.items() if fate == "zero"} == {"t.round()"}


def test_a_log_of_losses_keeps_every_graph():
    kept = megabytes_logged(steps=4)
    assert kept["loss"] == pytest.approx(4 * megabytes_logged(steps=1)["loss"], rel=0.05)
    assert kept["loss.detach()"] == kept["loss.item()"] == 0.0


@pytest.mark.parametrize("form", ["item", "numpy", "data", "list"])
def test_every_other_form_is_refused_with_its_reason(form):
    result = check("item", FORMS[form])
    assert not result
    assert "cuts the graph" in result.hint
