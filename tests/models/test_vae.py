"""The NBVAE: its names, its ELBO against float64 and scipy, its errors, how good it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import nbinom
from torch.utils._python_dispatch import TorchDispatchMode

from labkit.cells.data import load_pbmc
from labkit.cells.simulate import simulate
from labkit.models.guards import GUIDE, OFF, REPAIRED
from labkit.models.vae import NBVAE, elbo_loss, embed, sample_z
from labkit.training.evaluate import held_out
from labkit.training.train import trained_vae

RELATIVE_64 = 1e-10  # two float64 formulas of the same sum
RELATIVE_32 = 2e-6  # float32 linear layers in front of a float64 likelihood
FLOOR = 0.70  # of the neighbours' vote; 0.76 to 0.78 measured over three seeds
MARGIN = 15.0  # nats per cell; 21 to 24 measured over three seeds
READABLE = 45  # operations; 38 counted
BOOKKEEPING = {"detach", "t", "alias", "_to_copy", "promote_types", "view", "expand"}


@pytest.fixture
def cells():
    return simulate(40, n_genes=25, seed=5)[0]


@pytest.fixture
def model(cells):
    return NBVAE.for_cells(cells, latent_dim=4, hidden=16)


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_parameters_have_the_names_of_the_guide(model):
    layers = ("encoder.input_layer", "encoder.fc_mu", "encoder.fc_logvar")
    layers += ("decoder.hidden", "decoder.fc_mu", "decoder.fc_r")
    names = {name for name, _ in model.named_parameters()}
    assert names == {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}


def test_the_guides_calls_work_as_written(cells):
    model = NBVAE(n_genes=25, latent_dim=4, n_tissues=2)
    mu_z, logvar_z = model.encoder(cells.counts, cells.tissue)
    z = sample_z(mu_z, logvar_z)
    mu_x, r_x = model.decoder(z, cells.tissue)
    assert mu_x.shape == r_x.shape == cells.counts.shape
    loss, parts = elbo_loss(cells.counts, cells.tissue, model)
    assert loss.shape == ()
    assert set(parts) == {"reconstruction", "kl"}
    assert mu_x.min() > 0
    assert r_x.min() > 0


def test_the_encoder_sees_log1p_of_the_counts_and_the_tissue(cells, model):
    weights = {name: p.detach().double().numpy() for name, p in model.encoder.named_parameters()}
    inputs = np.concatenate([np.log1p(cells.counts.numpy()), cells.tissue.numpy()], axis=1)
    h = np.maximum(inputs @ weights["input_layer.weight"].T + weights["input_layer.bias"], 0)
    outputs = model.encoder(cells.counts, cells.tissue)
    for layer, value in zip(("fc_mu", "fc_logvar"), outputs, strict=True):
        expected = h @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
        np.testing.assert_allclose(value.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_elbo_is_the_one_of_scipy(cells, model):
    cells, model = cells.to(torch.float64), model.double()
    x, tissue, library = cells.counts, cells.tissue, cells.library
    loss, parts = elbo_loss(x, tissue, model, library, generator=noise())
    with torch.no_grad():
        mu, logvar = model.encoder(x, tissue)
        z = sample_z(mu, logvar, noise())
        mean, r = (value.numpy() for value in model.decoder(z, tissue, library))
    log_p = nbinom.logpmf(x.numpy(), r, r / (r + mean))
    std = logvar.exp().sqrt().numpy()
    kl = 0.5 * (std**2 + mu.numpy() ** 2 - 1) - np.log(std)
    assert parts["reconstruction"].item() == pytest.approx(-log_p.sum(1).mean(), rel=RELATIVE_64)
    assert parts["kl"].item() == pytest.approx(kl.sum(1).mean(), rel=RELATIVE_64)
    assert loss.item() == pytest.approx(parts["reconstruction"].item() + parts["kl"].item())


def test_float32_agrees_with_float64(cells, model):
    fixed = torch.zeros(len(cells), 4)

    def loss(model, cells):
        logs = model.decoder(fixed.to(cells.counts), cells.tissue, cells.library, as_logs=True)
        return torch.stack([log.sum() for log in logs])

    single = loss(model, cells).double()
    double = loss(model.double(), cells.to(torch.float64))
    torch.testing.assert_close(single, double, rtol=RELATIVE_32, atol=1e-3)


def test_all_three_settings_of_the_guards_agree_on_a_healthy_model(cells, model):
    x, tissue, library = cells.counts, cells.tissue, cells.library
    settings = [(OFF, "stable"), (REPAIRED, "stable"), (OFF, "guide"), (GUIDE, "guide")]
    losses = [
        elbo_loss(x, tissue, model, library, guards, form, generator=noise())[0].item()
        for guards, form in settings
    ]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-5)


def test_beta_weighs_the_kl(cells, model):
    loss, parts = elbo_loss(cells.counts, cells.tissue, model, beta=3.0)
    assert loss.item() == pytest.approx((parts["reconstruction"] + 3 * parts["kl"]).item())


def test_library_scales_the_mean_and_none_means_the_reference(cells, model):
    z = torch.zeros(len(cells), 4)
    reference = model.decoder.reference_library.expand(len(cells))
    plain, _ = model.decoder(z, cells.tissue)
    same, _ = model.decoder(z, cells.tissue, reference)
    double, _ = model.decoder(z, cells.tissue, 2 * reference)
    torch.testing.assert_close(plain, same)
    torch.testing.assert_close(double, 2 * plain)


def test_samples_have_the_moments_and_the_seed_that_were_asked_for():
    mu, logvar = torch.full((20_000, 1), 2.0), torch.full((20_000, 1), -1.0)
    z = sample_z(mu, logvar, noise(1))
    assert float(z.mean()) == pytest.approx(2.0, abs=0.02)  # 4 standard errors
    assert float(z.std()) == pytest.approx(np.exp(-0.5), rel=0.02)
    assert torch.equal(z, sample_z(mu, logvar, noise(1)))


def test_nothing_touches_the_global_generator(cells):
    before = torch.get_rng_state()
    model = NBVAE.for_cells(cells, latent_dim=3, seed=7)
    elbo_loss(cells.counts, cells.tissue, model, generator=noise())
    assert torch.equal(before, torch.get_rng_state())
    again = NBVAE.for_cells(cells, latent_dim=3, seed=7)
    assert torch.equal(model.encoder.fc_mu.weight, again.encoder.fc_mu.weight)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("counts", torch.ones(40, 24), r"x: expected shape \(cell, 25\), got \(40, 24\)"),
        ("counts", torch.ones(25), r"x: expected shape \(cell, 25\), got \(25,\)"),
        ("tissue", torch.ones(40, 3), r"tissue: expected shape \(40, 2\), got \(40, 3\)"),
        ("tissue", torch.ones(39, 2), r"tissue: expected shape \(40, 2\)"),
        ("library", torch.ones(40, 1), r"library: expected shape \(40,\), got \(40, 1\)"),
        ("counts", torch.full((40, 25), float("nan")), "'finite'"),
        ("counts", torch.full((40, 25), -1.0), "'negative'"),
        ("counts", torch.full((40, 25), 0.5), "'integer'"),
    ],
)
def test_bad_input_is_named(cells, model, field, value, message):
    wrong = replace(cells, **{field: value})
    with pytest.raises(ValueError, match=message):
        elbo_loss(wrong.counts, wrong.tissue, model, wrong.library)


def test_unknown_form_is_named(cells, model):
    with pytest.raises(ValueError, match="'stable' or 'guide'; got 'fast'"):
        elbo_loss(cells.counts, cells.tissue, model, form="fast")


class Names(TorchDispatchMode):
    """The operations of a graph: a custom autograd function counts as its caller does, once."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if torch.is_grad_enabled() and name not in BOOKKEEPING:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def test_one_forward_pass_is_a_graph_that_a_person_can_read(cells, model):
    with Names() as names:
        elbo_loss(cells.counts, cells.tissue, model, cells.library)
    assert len(names.seen) <= READABLE, names.seen


def first_bad_logvar(guards, form="stable"):
    """The smallest logvar, the same for all, at which the loss of 64 cells is not finite."""
    cells, low, high = load_pbmc().train[:64], 0.0, 200.0
    model = trained_vae()
    model.encoder.fc_logvar.weight.data.zero_()
    while high - low > 0.01:
        middle = (low + high) / 2
        model.encoder.fc_logvar.bias.data.fill_(middle)
        x, tissue, library = cells.counts, cells.tissue, cells.library
        with torch.no_grad():
            loss, _ = elbo_loss(x, tissue, model, library, guards, form, generator=noise())
        low, high = (middle, high) if loss.isfinite() else (low, middle)
    return high


def test_the_loss_breaks_where_its_docstring_says():
    capped = first_bad_logvar(replace(REPAIRED, logvar=OFF.logvar))
    assert capped == pytest.approx(np.log(torch.finfo(torch.float32).max * 2 / (8 * 64)), abs=0.02)
    assert first_bad_logvar(OFF) == pytest.approx(23.2, abs=1.0)  # depends on the noise
    assert first_bad_logvar(OFF, "guide") == pytest.approx(5.0, abs=0.5)
    assert first_bad_logvar(REPAIRED) == pytest.approx(200.0)  # never


def test_held_out_cells_are_explained_better_than_by_simpler_models():
    cells, model = load_pbmc(), trained_vae()
    score = held_out(model, cells)
    assert score.pooled < score.per_type
    assert score.elbo <= score.bound
    assert score.bound > score.per_type + MARGIN
    assert score.neighbours >= FLOOR
    assert "nats per cell" in str(score)
    assert embed(model, cells).shape == (700, 8)


def test_the_untrained_model_would_not_pass():
    cells = load_pbmc()
    score = held_out(NBVAE.for_cells(cells.train), cells, samples=4)
    assert score.bound < score.per_type
