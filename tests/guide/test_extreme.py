"""`test_extreme_inputs` beside the guide's original: broken models that pass it fail ours."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from originals import original
from torch import nn

from labkit import guide
from labkit.models.energy import energy_distance_guide
from labkit.models.guards import GUIDE, OFF
from labkit.models.vae import NBVAE, elbo_loss, sample_z


def loss_of(model, x, tissue, guards=GUIDE, distance=False):
    """The guide's ELBO, with a self-distance of the latent cloud if asked for."""
    loss = elbo_loss(x, tissue, model, guards=guards, form="guide")[0]
    if distance:
        z = sample_z(*model.encoder(x, tissue))
        loss = loss + energy_distance_guide(z, z.detach())
    return loss


def made(bias: float = 0.0) -> NBVAE:
    model = NBVAE(n_genes=100, latent_dim=16, n_tissues=2)
    model.encoder.fc_logvar.bias.data.fill_(bias)
    model.decoder.fc_r.weight.data.mul_(1e-9)  # r stays put: only the named fault is left
    model.decoder.fc_mu.weight.data.mul_(1e-9)
    if bias > 80:  # the noise reaches the decoder as small as ever: the KL alone overflows
        model.decoder.hidden.weight.data.mul_(1e-20)
    return model


BROKEN = {
    "no clamps, the KL overflows": (89.5, partial(loss_of, guards=OFF), "loss is inf"),
    "a distance at zero": (0.0, partial(loss_of, distance=True), "gradient not finite"),
    "two clamps, the head is dead": (15.0, loss_of, "zero gradient on every input"),
}


def theirs(bias, loss):
    """The guide's test, run on a model of ours: its names stand for what is given."""
    names = {"NBVAE": lambda **_: made(bias), "elbo_loss": lambda x, t, m: (loss(m, x, t), {})}
    original("test_extreme_inputs", **names)()


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_passes_theirs_and_fails_ours(name, capsys):
    bias, loss, words = BROKEN[name]
    torch.manual_seed(0)
    theirs(bias, loss)
    assert "✅ 所有极端输入测试通过" in capsys.readouterr().out
    with pytest.raises(AssertionError) as caught:
        guide.test_extreme_inputs(made(bias), loss, sweep={})
    assert words in str(caught.value)


def test_the_dead_parameters_are_named(capsys):
    with pytest.raises(AssertionError, match=r"encoder\.fc_logvar\.weight"):
        guide.test_extreme_inputs(made(15.0), loss_of, sweep={})


def test_what_lives_in_the_sweep_alone_is_dead():
    with pytest.raises(AssertionError, match="zero gradient on every input"):
        guide.test_extreme_inputs(made(15.0), loss_of, sweep={"encoder.fc_logvar.bias": (0.0,)})


def test_a_fresh_guided_model_passes_theirs_but_not_the_sweep():
    model = made()
    theirs(0.0, loss_of)
    with pytest.raises(AssertionError, match=r"decoder\.fc_r\.bias = 100: loss is nan"):
        guide.test_extreme_inputs(model, loss_of)


def test_the_labs_model_passes_and_is_as_before():
    before = torch.get_rng_state()
    model = NBVAE(30, 4, 2)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    result = guide.test_extreme_inputs(model)
    assert result
    assert len(result.lines) == 14
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_guides_own_call_works(capsys):
    assert guide.test_extreme_inputs()
    assert "✅ all extreme inputs passed" in capsys.readouterr().out


def mse(model, x, y):
    return F.mse_loss(model(x), y)


def test_any_model(capsys):
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    example = torch.randn(5, 4), torch.zeros(5, 1)
    assert guide.test_extreme_inputs(model, mse, example=example)
    model[0].weight.data.mul_(0.0)
    model[2].weight.data.mul_(0.0)
    with pytest.raises(AssertionError, match=r"zero gradient on every input: 0\.weight, 0\.bias"):
        guide.test_extreme_inputs(model, mse, example=example)


class Hides(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x):
        return self.layer(x.nan_to_num(0.0, 0.0, 0.0))


def test_a_model_that_hides_nan_is_told():
    with pytest.raises(AssertionError, match="nan in the input: hidden"):
        guide.test_extreme_inputs(Hides(), mse, example=(torch.randn(5, 4), torch.zeros(5, 1)))


def test_cases_of_your_own():
    cases = {"usual": (torch.ones(2, 4), torch.ones(2, 1)), "far": (torch.ones(2, 4) * 1e25,) * 2}
    with pytest.raises(AssertionError, match="far: loss is inf"):
        guide.test_extreme_inputs(nn.Linear(4, 4), lambda m, x, y: m(x).square().sum(), cases)


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="loss: expected a function"):
        guide.test_extreme_inputs(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="inputs: expected cases"):
        guide.test_extreme_inputs(nn.Linear(2, 2), mse)


def test_pytest_does_not_collect_it():
    assert guide.test_extreme_inputs.__test__ is False
