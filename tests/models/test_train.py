"""A step happens whole or not at all; a run comes back from every bad start and every poison."""

import copy

import pytest
import torch
from torch import nn

from labkit.cells.simulate import simulate
from labkit.models.guards import GUIDE, Guard
from labkit.models.vae import NBVAE, elbo_loss
from labkit.training.train import Run, TrainingFailed, safe_step, train_vae, trained_vae

CLIP_TOLERANCE = 1e-5  # relative; the clipped norm is that of float32 products


def parts():
    """A small model with running statistics, and an Adam that has state."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    safe_step(lambda: model(torch.randn(8, 3)).square().mean(), optimizer, model.parameters())
    return model, optimizer


def bits(model, optimizer):
    return copy.deepcopy((dict(model.state_dict()), optimizer.state_dict()["state"]))


def same(one, two) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    return torch.equal(one, two)


class Spoil(torch.autograd.Function):
    """Value as it is; the gradient is replaced."""

    @staticmethod
    def forward(ctx, value, gradient):
        ctx.gradient = gradient
        return value.clone()

    @staticmethod
    def backward(ctx, incoming):
        return torch.full_like(incoming, ctx.gradient), None


FAULTS = {
    "loss is nan": lambda out: out.mean() * float("nan"),
    "loss is inf": lambda out: out.mean() + float("inf"),
    "gradient not finite": lambda out: Spoil.apply(out, float("nan")).mean(),
    "gradient not finite: 2.weight": lambda out: Spoil.apply(out.mean(), float("inf")),
    "no parameter has a gradient": lambda out: out.detach().mean().requires_grad_(),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_refused_step_touches_nothing(reason):
    model, optimizer = parts()
    before, batch = bits(model, optimizer), torch.randn(8, 3)

    def loss():
        return FAULTS[reason](model(batch))

    named = model.named_parameters()
    step = safe_step(loss, optimizer, named, buffers=model.buffers())
    assert not step.accepted
    assert step.reason.startswith(reason.split(":")[0])
    assert all(same(one, two) for one, two in zip(before, bits(model, optimizer), strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_a_bad_gradient_is_named():
    model, optimizer = parts()
    loss = model(torch.randn(8, 3)).mean() + Spoil.apply(model[2].bias, float("nan")).sum()
    step = safe_step(loss, optimizer, model.named_parameters())
    assert step.reason == "gradient not finite: 2.bias"


def test_a_guard_that_refuses_is_a_refusal_with_its_reason():
    weight = nn.Parameter(torch.tensor(30.0))
    guard = Guard("logvar", "refuse", -10.0, 10.0)
    step = safe_step(lambda: guard(weight).exp(), torch.optim.SGD([weight], 0.1), [weight])
    assert not step.accepted
    assert step.reason == "expected finite values in [-10, 10]; got 30"
    assert (weight.item(), weight.grad) == (30.0, None)


def test_an_accepted_step_moves_parameters_and_running_statistics():
    model, optimizer = parts()
    before = bits(model, optimizer)
    batch = torch.randn(8, 3)
    step = safe_step(lambda: model(batch).square().mean(), optimizer, model.parameters())
    assert step.accepted
    assert step.reason == ""
    assert not same(before[0], dict(model.state_dict()))


def test_backward_does_not_run_when_the_loss_is_bad():
    ran = []
    weight = nn.Parameter(torch.ones(()))
    loss = weight * float("nan")
    loss.register_hook(ran.append)
    safe_step(loss, torch.optim.SGD([weight], 0.1), [weight])
    assert ran == []


@pytest.mark.parametrize("size", [1e-3, 1e3, 1e20, 1e37])
def test_long_gradients_are_clipped_by_a_norm_that_cannot_overflow(size):
    weight = nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    step = safe_step((weight * size).sum(), optimizer, [weight], max_norm=10.0)
    assert step.accepted
    assert step.norm == pytest.approx(2 * size, rel=CLIP_TOLERANCE)
    assert float(weight.detach().norm()) == pytest.approx(min(2 * size, 10.0), rel=CLIP_TOLERANCE)


def run_of(model, **limits):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1000)
    return Run(model, optimizer, schedule, torch.Generator().manual_seed(0), **limits)


def good_loss(run):
    batch = torch.randn(8, 3, generator=run.generator)
    return lambda: run.model(batch).square().mean()


def test_bad_batches_are_skipped_and_counted_and_training_goes_on():
    run = run_of(parts()[0])
    for i in range(10):
        bad = i in (4, 7)
        loss = good_loss(run)
        run.step((lambda loss=loss: loss() * float("nan")) if bad else loss)
    assert (run.skipped, run.rollbacks, len(run.losses)) == (2, 0, 10)
    assert run.losses[4] is None
    assert run.losses[8] is not None


@pytest.mark.parametrize("where", ["0.weight", "1.running_mean"])
def test_a_poisoned_state_goes_back_to_the_verified_one(where):
    run = run_of(parts()[0], skip_limit=3, verify_every=10)
    for _ in range(15):
        run.step(good_loss(run))
    run.model.state_dict()[where].fill_(float("nan"))
    for _ in range(10):
        run.step(good_loss(run))
    assert run.rollbacks == 1
    assert run.losses[-1] is not None
    assert all(value.isfinite().all() for value in run.model.state_dict().values())


def test_going_back_restores_every_bit_but_not_the_data_position():
    run = run_of(parts()[0], verify_every=5)
    for _ in range(8):
        run.step(good_loss(run))
    good = copy.deepcopy(run.verified)
    run.roll_back("a reason")
    now = run.snapshot()
    assert same(good["model"], now["model"])
    assert same(good["optimizer"]["state"], now["optimizer"]["state"])
    assert torch.equal(good["generator"], now["generator"])
    assert len(run.losses) == 8
    run.step(good_loss(run))  # trains on a copy: the verified state keeps its bits
    assert same(good["model"], run.verified["model"])
    assert same(good["optimizer"]["state"], run.verified["optimizer"]["state"])


def test_a_run_that_cannot_be_saved_fails_with_its_reason():
    run = run_of(parts()[0], skip_limit=2, rollback_limit=1)
    run.step(good_loss(run))
    with pytest.raises(TrainingFailed, match=r"loss is nan; no way back. Run\(7 steps, 6 skipped"):
        [run.step(lambda: good_loss(run)() * float("nan")) for _ in range(20)]
    fresh = run_of(parts()[0], skip_limit=0)
    with pytest.raises(TrainingFailed, match="loss is inf"):
        fresh.step(lambda: good_loss(fresh)() + float("inf"))


@pytest.fixture(scope="module")
def small():
    return simulate(256, n_genes=40, seed=1)[0]


def fresh(cells, seed=0):
    return NBVAE.for_cells(cells.train, 4, hidden=32, seed=seed)


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_generator_alone(small):
    models, before = [fresh(small) for _ in range(3)], torch.get_rng_state()
    runs = [
        train_vae(model, small, epochs=3, seed=s)
        for model, s in zip(models, (1, 1, 2), strict=True)
    ]
    assert runs[0].losses == runs[1].losses != runs[2].losses
    assert same(dict(models[0].state_dict()), dict(models[1].state_dict()))
    assert torch.equal(before, torch.get_rng_state())


def test_progress_is_reported_and_the_loss_falls(small):
    seen = []
    run = train_vae(fresh(small), small, epochs=15, on_epoch=lambda epoch, loss: seen.append(loss))
    assert len(seen) == 15
    assert seen[-1] < seen[0]
    assert len(run.losses) == 15 * (len(small.train) // 64)


def test_held_out_cells_are_never_seen(small):
    poisoned = small[torch.arange(len(small))]
    poisoned.counts[small.held_out] = 1e6
    losses = [train_vae(fresh(small), cells, epochs=2).losses for cells in (small, poisoned)]
    assert losses[0] == losses[1]


def test_bad_counts_are_named_before_the_first_step(small):
    broken = small[torch.arange(len(small))]
    broken.counts[~small.held_out] -= 1
    with pytest.raises(ValueError, match="'negative'"):
        train_vae(fresh(small), broken)
    with pytest.raises(ValueError, match="'shape'"):
        train_vae(NBVAE(41, 4, 2), small)


def test_the_shared_model_is_a_fresh_copy_each_time():
    one, two = trained_vae(epochs=1), trained_vae(epochs=1)
    one.encoder.fc_mu.bias.data.fill_(9.0)
    assert not torch.equal(one.encoder.fc_mu.bias, two.encoder.fc_mu.bias)
    assert torch.equal(two.encoder.fc_mu.bias, trained_vae(epochs=1).encoder.fc_mu.bias)


# The bias of one layer is forced to a value that breaks the guide's loss.
STARTS = {
    "as it is": ("encoder.fc_logvar", 0.0),
    "logvar 15": ("encoder.fc_logvar", 15.0),
    "logvar 89.5": ("encoder.fc_logvar", 89.5),
    "logvar 178.5": ("encoder.fc_logvar", 178.5),
    "logvar -200": ("encoder.fc_logvar", -200.0),
    "r +30": ("decoder.fc_r", 30.0),
    "r -30": ("decoder.fc_r", -30.0),
    "mu -40": ("decoder.fc_mu", -40.0),
    "mu +40": ("decoder.fc_mu", 40.0),
}
RECOVERED = 1.6  # times the healthy final loss; 1.45 measured for the worst start (mu -40)
HEALTHY = 53.5  # nats per cell, final loss from the start "as it is"


def final_loss(cells, layer, value, epochs=100, **options):
    model = fresh(cells)
    model.get_submodule(layer).bias.data.fill_(value)
    run = train_vae(model, cells, epochs, lr=1e-2, max_norm=10.0, **options)
    assert (run.skipped, run.rollbacks) == (0, 0)
    assert all(p.isfinite().all() for p in model.parameters())
    return sum(run.losses[-6:]) / 6


@pytest.mark.parametrize("start", STARTS)
def test_every_forced_bad_start_recovers(small, start):
    assert final_loss(small, *STARTS[start]) < RECOVERED * HEALTHY


def test_the_guides_clamps_never_recover_from_a_logvar_outside_them(small):
    model, cells = fresh(small), small.train
    model.encoder.fc_logvar.bias.data.fill_(15.0)
    noise = torch.Generator().manual_seed(0)
    loss, _ = elbo_loss(cells.counts, cells.tissue, model, guards=GUIDE, generator=noise)
    loss.backward()
    assert (model.encoder.fc_logvar.bias.grad == 0).all()
