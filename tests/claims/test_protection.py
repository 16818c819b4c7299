"""Each of the guide's protection points stops and lets through what was measured."""

from pathlib import Path

import pytest
import torch

from labkit.claims import names
from labkit.claims.operator_points import the_check, the_penalty, the_power_iteration, the_root
from labkit.claims.protection import measured, points
from labkit.claims.vae_points import the_decoder, the_kl, the_logs, the_sampler
from labkit.models.guards import OFF, Guard, Guards
from labkit.models.spectral import unit

QUOTES = Path(__file__).with_name("quotes.txt")
STE = Guards(
    sample_logvar=Guard("sample_logvar", "straight_through", -10.0, 10.0),
    kl_logvar=Guard("kl_logvar", "straight_through", -10.0, 10.0),
)


@pytest.mark.parametrize("entry", points(), ids=lambda entry: entry.guard)
def test_it_stops_and_lets_through_what_was_measured(entry):
    row = entry.run()
    assert row.guard == entry.guard
    assert row.stops == entry.stops
    assert row.lets_through == entry.lets_through
    assert row.gradient.endswith(".")


def test_a_second_run_says_the_same_words():
    assert measured() == measured()


def test_the_guides_nine_points_are_there_with_its_words():
    where = [entry.where for entry in points()]
    nine = [f"VAE {n}" for n in range(1, 6)] + [f"operator {n}" for n in range(1, 5)]
    assert sorted(where) == sorted([*nine, "risk matrix", "training"])
    lines = QUOTES.read_text(encoding="utf-8").splitlines()
    quotes = [line.split("\t")[1] for line in lines]
    for entry in points():
        assert any(entry.chinese in quote or quote in entry.chinese for quote in quotes)
        assert set(entry.claims) <= set(names())
        assert entry.stops


@pytest.mark.parametrize(
    ("run", "changed", "fault", "stopped"),
    [
        (the_sampler, {"guards": OFF}, "std = Inf (logvar 178)", False),
        (the_sampler, {"guards": STE}, "KL = Inf (logvar 89)", True),
        (the_kl, {"guards": STE}, "a logvar that stays outside (15)", True),
        (the_kl, {"guards": OFF}, "KL = Inf (logvar 89)", False),
        (the_decoder, {"eps": 1e-6}, "r = 0 in float16", True),
        (the_decoder, {"eps": 0.0}, "r = 0", False),
        (the_logs, {"eps": 1e-6}, "log(0) in float16", True),
        (the_logs, {"eps": 1e-30}, "a pull that fades (mu 1e-11)", True),
        (the_penalty, {"bound": 1.0}, "1000 steps at the bound", True),
        (the_power_iteration, {"normalise": unit}, "a zero matrix", True),
        (the_power_iteration, {"normalise": lambda v: v}, "an iterate that overflows", False),
        (the_check, {"check": lambda t: ~t.isfinite()}, "Inf in the state", True),
        (the_root, {"root": torch.sqrt}, "NaN of a square below 0", False),
        (the_root, {"root": lambda x: (x + 1).sqrt()}, "a gradient of NaN or Inf at 0", True),
    ],
)
def test_another_guard_gives_another_row(run, changed, fault, stopped):
    usual, row = run(), run(**changed)
    assert (fault in usual.stops) != stopped
    assert (fault in row.stops) == stopped
