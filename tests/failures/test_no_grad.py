"""Where no_grad is right, where it cuts in silence, and what it does not freeze."""

import pytest
import torch

from labkit import check
from labkit.bench import Bench
from labkit.failures._batch import batch
from labkit.failures.no_grad import FORMS, courses, live_parts, parts, trained_halves


@pytest.fixture
def bench():
    return Bench("no_grad")


def words(reading, half: str) -> set[str]:
    return {f.word for f in reading.report.parameters if f.name.startswith(half)}


def test_the_guides_rule_is_right_where_nothing_in_front_learns(bench):
    reading = bench.turn("guide")
    assert reading.verdict == "healthy"
    assert words(reading, "decoder") == {"ok"}


def test_the_guides_rule_is_silent_and_wrong_where_the_frozen_half_lies_behind(bench):
    reading = bench.turn("broken")
    assert reading.verdict == "wrong"
    assert (reading.culprit.op, reading.culprit.module) == ("no_grad", "decoder")
    assert words(reading, "encoder") == {"wrong"}
    assert reading.report.error == ""


def test_what_is_left_is_the_gradient_of_the_kl(bench):
    def gradient(form, reconstructed: bool):
        model = trained_halves("off")
        reconstruction, kl = parts(model, batch(), FORMS[form], "encoder")
        (reconstruction + kl if reconstructed else kl).backward()
        return model.encoder.fc_mu.weight.grad

    assert torch.equal(gradient("no_grad", True), gradient("frozen", False))


def test_without_the_kl_it_is_loud(bench):
    reading = bench.turn("broken", kl=0.0)
    assert reading.verdict == "severed"
    assert words(reading, "encoder") == {"none"}
    model = trained_halves("off")
    reconstruction, _ = parts(model, batch(), FORMS["no_grad"], "encoder")
    with pytest.raises(RuntimeError, match="does not require grad"):
        reconstruction.backward()


def test_the_guides_mistake_is_silent_since_the_decoder_follows(bench):
    reading = bench.turn("needless")
    assert reading.verdict == "severed"
    assert reading.culprit.module.startswith("encoder")
    assert words(reading, "encoder") == {"none"}
    assert words(reading, "decoder") == {"ok"}
    assert reading.report.error == ""


def test_an_encoder_behind_a_closed_way_learns_no_reconstruction():
    paths = courses()
    assert paths["frozen"][0] == paths["no_grad"][0]
    assert paths["frozen"][0] - paths["frozen"][-1] > 150  # measured 189 nats
    assert abs(paths["no_grad"][-1] - paths["no_grad"][0]) < 50  # measured 4


def test_batch_norm_and_dropout_live_on_under_no_grad(bench):
    assert live_parts() == {"train()": (0.2, 0.5), "eval()": (0.0, 0.0)}
    for form in ("no_grad", "weights", "needless"):
        reading = bench.turn("drifting", run_as=form)
        assert (reading.verdict, reading.culprit.op) == ("wrong", "batch_norm")
    assert bench.turn("drifting", run_as="frozen").verdict == "healthy"


def test_a_gradient_for_nobody_is_called_frozen_and_costs_operations(bench):
    plain = bench.turn("repaired", run_as="plain")
    assert plain.verdict == "frozen"
    assert len(plain.report.ops) > len(bench.turn("repaired").report.ops)


def test_the_norm_undoes_itself_in_eval_mode(bench):
    off, on = bench.turn("healthy"), bench.turn("healthy", norm="on")
    assert on.value == pytest.approx(off.value, rel=1e-6)  # float32 rounding of one more affine map


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("no_grad", "the way through a frozen half is shut"),
        ("weights", "call eval()"),
        ("needless", "cuts the graph"),
        ("plain", "no optimizer holds"),
    ],
)
def test_every_other_form_is_refused_with_its_reason(form, words):
    result = check("no_grad", FORMS[form])
    assert not result
    assert words in result.hint
