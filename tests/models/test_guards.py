"""Each guard: a run that it edits, one where it kills a gradient or cannot, one where it idles."""

from dataclasses import dataclass, replace
from math import isfinite

import pytest
import torch

from labkit.cells.simulate import simulate
from labkit.models.guards import (
    GUIDE,
    MODES,
    OFF,
    REPAIRED,
    Guard,
    Guards,
    hard_clamp,
    straight_through,
    unguarded,
)
from labkit.models.vae import NBVAE, elbo_loss
from labkit.probes.guard_audit import audit_guards

CELLS, LATENT, GENES = 40, 4, 25


def audited(guards, form="stable", x=None, dtype=torch.float32, **shifts):
    """Reports by guard of one run, after filling the biases of the named layers."""
    cells = simulate(CELLS, n_genes=GENES, seed=5)[0].to(dtype)
    model = NBVAE.for_cells(cells, LATENT, hidden=16).to(dtype)
    layers = {"logvar": model.encoder.fc_logvar, "r": model.decoder.fc_r, "mu": model.decoder.fc_mu}
    for name, value in shifts.items():
        layers[name].bias.data.fill_(value)
    x = cells.counts if x is None else x

    def loss_of(guards):
        noise = torch.Generator().manual_seed(0)
        tissue, library = cells.tissue, cells.library
        return elbo_loss(x, tissue, model, library, guards, form, generator=noise)[0]

    reports = {report.guard: report for report in audit_guards(guards, loss_of)}
    assert all(p.grad is None for p in model.parameters())  # an audit leaves no gradient behind
    return reports


def altered(report):
    return report.altered / report.elements


CLAMPS = replace(GUIDE, log_r=REPAIRED.log_r)  # run in the stable form, so that all is finite

# What each guard does: the run that it edits all of, whether that kills every gradient, and the
# run in which it has nothing to do.
CASES = {
    "sample_logvar": (CLAMPS, "stable", {"logvar": 15.0}, True, {"logvar": 0.0}),
    "kl_logvar": (CLAMPS, "stable", {"logvar": 15.0}, True, {"logvar": 0.0}),
    "decoder_r": (GUIDE, "guide", {"r": -30.0}, False, {"r": 5.0}),
    "logs": (GUIDE, "guide", {"mu": -40.0}, False, {"mu": 10.0}),
    "logvar": (REPAIRED, "stable", {"logvar": 15.0}, False, {"logvar": 0.0}),
    "log_r": (REPAIRED, "stable", {"r": 30.0}, False, {"r": 0.0}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_guard_edits_kills_or_cannot_and_idles(name):
    guards, form, edits, kills, idles = CASES[name]
    report = audited(guards, form, **edits)[name]
    assert altered(report) == 1.0
    assert report.largest_change > 0
    assert isfinite(report.loss_with)
    assert report.killed == (report.elements if kills else 0)
    report = audited(guards, form, **idles)[name]
    assert report.calls == 1
    assert (report.altered, report.largest_change, report.killed) == (0, 0.0, 0)


def test_the_floor_of_r_edits_and_kills_only_while_the_decoders_own_floor_is_off():
    alone = replace(GUIDE, decoder_r=unguarded)
    report = audited(alone, "guide", r=-30.0)["r"]
    assert altered(report) == 1.0
    assert report.killed > 0.99 * report.elements  # the others had no gradient to lose
    assert audited(GUIDE, "guide", r=-30.0)["r"].altered == 0
    assert audited(alone, "guide", r=0.0)["r"].altered == 0


def test_the_clamp_of_counts_edits_bad_data_and_kills_its_gradient():
    x = simulate(CELLS, n_genes=GENES, seed=5)[0].counts.clone()
    x[:, :2] = -0.5  # log1p of it is finite, so that the run ends
    report = audited(GUIDE, "guide", x=x.requires_grad_())["counts"]
    assert report.altered == 2 * CELLS
    assert report.largest_change == 0.5
    assert report.killed == 2 * CELLS
    assert audited(GUIDE, "guide")["counts"].altered == 0


def test_the_repaired_guard_of_counts_edits_nothing_and_refuses():
    report = audited(REPAIRED)["counts"]
    assert (report.calls, report.altered, report.killed) == (1, 0, 0)
    with pytest.raises(ValueError, match="'negative'"):
        audited(REPAIRED, x=torch.full((CELLS, GENES), -1.0))


def test_every_point_of_both_settings_has_its_runs():
    points = {name for g in (GUIDE, REPAIRED) for name in vars(g) if vars(g)[name] is not unguarded}
    assert points == {*CASES, "r", "counts"}


def test_in_float16_the_guides_eps_is_nothing():
    value = torch.zeros(3, dtype=torch.float16)
    assert (GUIDE.decoder_r(value) == 0).all()
    assert (GUIDE.r(value) == 0).all()
    assert (GUIDE.logs(value).log() == -torch.inf).all()


def test_an_audit_says_what_a_guard_changed_in_the_loss():
    report = audited(CLAMPS, logvar=30.0)["kl_logvar"]
    expected = 0.5 * LATENT * (torch.tensor(10.0).exp() - torch.tensor(30.0).exp())
    assert report.loss_change == pytest.approx(expected.item(), rel=0.2)  # weights spread it
    assert f"changed the loss by {report.loss_change:.3g}" in str(report)


def test_an_audit_counts_repeated_calls_cut_graphs_and_unreached_guards():
    @dataclass(frozen=True)
    class Two:
        cutting: object = torch.Tensor.detach
        unused: object = unguarded

    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    reports = audit_guards(Two(), lambda g: (g.cutting(weight) * g.cutting(weight)).sum())
    assert (reports[0].calls, reports[0].elements, reports[0].killed) == (2, 4, 4)
    assert reports[1].calls == 0
    assert str(reports[1]) == "unused: not reached"
    with pytest.raises(TypeError, match="dataclass"):
        audit_guards({"a": unguarded}, lambda g: weight.sum())


def test_straight_through_has_the_values_of_a_clamp_to_the_bit_and_gradient_one():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        edge = torch.tensor([-300.0, -10.0, -0.0, 0.1, 9.99, 10.0, 89.5, 3e4], dtype=dtype)
        value = edge.clone().requires_grad_()
        capped = straight_through(value)
        assert torch.equal(capped, hard_clamp(edge))
        capped.sum().backward()
        assert (value.grad == 1).all()


def test_hard_clamp_has_gradient_zero_outside():
    value = torch.tensor([-10.5, 0.0, 10.5], requires_grad=True)
    hard_clamp(value).sum().backward()
    assert value.grad.tolist() == [0, 1, 0]


@pytest.mark.parametrize("mode", MODES)
def test_nan_passes_every_mode_but_refuse(mode):
    guard = Guard("g", mode, -1.0, 1.0)
    value = torch.tensor([0.0, float("nan")])
    if mode == "refuse":
        with pytest.raises(FloatingPointError, match="got nan"):
            guard(value)
    else:
        assert guard(value)[1].isnan()


def test_refuse_names_the_value_outside_and_passes_the_rest():
    guard = Guard("state", "refuse", -5.0, 5.0)
    value = torch.tensor([0.0, 5.0])
    assert guard(value) is value
    assert guard(torch.zeros(0)).numel() == 0
    with pytest.raises(FloatingPointError, match=r"\[-5, 5\]; got 6"):
        guard(value + 1)


def test_unknown_mode_is_named():
    with pytest.raises(ValueError, match="expected mode off, clamp, straight_through"):
        Guard("g", "squash")


def test_a_plain_function_is_a_guard():
    half = audited(Guards(logvar=lambda logvar: 0.5 * logvar), logvar=4.0)["logvar"]
    assert altered(half) == 1.0
    assert audited(OFF)["logvar"].altered == 0
