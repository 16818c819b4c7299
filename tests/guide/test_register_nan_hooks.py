"""`register_nan_hooks` beside the guide's original, at each of its blind spots."""

import gc
from dataclasses import dataclass

import pytest
import torch
from originals import original
from torch import Tensor, nn

from labkit.guide import check_tensor, register_nan_hooks
from labkit.models.guards import OFF
from labkit.models.vae import NBVAE, elbo_loss

theirs = original("register_nan_hooks", check_tensor=check_tensor)


@dataclass
class Out:
    logits: Tensor


class Made(nn.Module):
    """Returns what its function makes of x; a linear layer stands in front and behind."""

    def __init__(self, form, tail=lambda out: out):
        super().__init__()
        self.first, self.form, self.tail = nn.Linear(3, 3), form, tail
        self.inner = Inner(form)

    def forward(self, x):
        return self.tail(self.inner(self.first(x)))


class Inner(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, h):
        return self.form(h)


NAN = float("nan")
MISSED = {
    "tuple": (lambda h: (h, h * NAN), "NaN in inner (Inner), output[1]"),
    "dict": (lambda h: {"mu": h, "r": [h * NAN]}, "NaN in inner (Inner), output['r'][0]"),
    "dataclass": (lambda h: Out(h * NAN), "NaN in inner (Inner), output.logits"),
    "inf": (lambda h: h / 0.0, "inner (Inner), output"),
}


@pytest.mark.parametrize("kind", MISSED)
def test_nothing_hides_in_an_output(kind):
    form, words = MISSED[kind]
    model, x = Made(form), torch.ones(2, 3)
    theirs(model)
    model(x)  # silent
    model = Made(form)
    with register_nan_hooks(model) as hooks, pytest.raises(RuntimeError) as caught:
        model(x)
    assert words in str(caught.value)
    assert len(hooks.found) == 1


def test_a_sick_lstm_is_seen(capsys):
    model = nn.Sequential(nn.LSTM(3, 3))
    model[0].weight_hh_l0.data[0, 0] = NAN
    theirs(model)
    model(torch.ones(2, 1, 3))  # silent
    hooks = register_nan_hooks(model)
    capsys.readouterr()
    with pytest.raises(RuntimeError, match="NaN in 0 "):
        model(torch.ones(2, 1, 3))
    assert "Parameter weight_hh_l0: ❌ contains NaN" in capsys.readouterr().out
    hooks.remove()


class Between(nn.Module):
    """The NaN is made between two modules."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.ModuleDict({"only": nn.Linear(3, 3)})["only"]

    def forward(self, *, x):
        return self.b(self.a(x).sub(100).log().clamp(min=0))


def test_what_is_made_between_modules_is_caught_where_it_enters():
    model = Between()
    with register_nan_hooks(model), pytest.raises(RuntimeError, match=r"input \[0\] of b"):
        model(x=torch.ones(2, 3))


def test_a_call_with_keywords_only():
    class Keywords(nn.Module):
        def forward(self, *, x):
            return x.log()

    model, x = Keywords(), -torch.ones(2)
    theirs(model)
    with pytest.raises(IndexError):
        model(x=x)
    model = Keywords()
    with register_nan_hooks(model), pytest.raises(RuntimeError, match="NaN in the model"):
        model(x=x)


def test_a_gradient_that_is_nan_is_caught():
    def distances(h):
        return (h.unsqueeze(0) - h.unsqueeze(1)).square().sum(-1).sqrt()

    model, x = Made(lambda h: h * 1, distances), torch.randn(4, 3)
    theirs(model)
    model(x).mean().backward()
    assert model.first.weight.grad.isnan().any()  # silent
    model = Made(lambda h: h * 1, distances)
    with register_nan_hooks(model):
        loss = model(x).mean()
        with pytest.raises(RuntimeError, match=r"NaN in the gradient that arrives at inner"):
            loss.backward()


@pytest.mark.parametrize("logvar", [89.5, 178.5])
def test_the_labs_own_model(logvar):
    def loss():
        model = NBVAE(20, 4, 2)
        model.encoder.fc_logvar.bias.data.fill_(logvar)
        return model

    x, tissue = torch.ones(6, 20), torch.eye(2)[torch.arange(6) % 2]
    torch.manual_seed(0)
    model = loss()
    if logvar < 100:
        theirs(model)
        value = elbo_loss(x, tissue, model, guards=OFF)[0]
        assert not value.isfinite()  # silent
        model = loss()
    hooks = register_nan_hooks(model)
    with pytest.raises(RuntimeError):
        hooks.check("loss", elbo_loss(x, tissue, model, guards=OFF)[0])


def test_hooks_are_removed_and_do_not_add_up():
    model, x = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), torch.full((1, 3), NAN)
    first = register_nan_hooks(model)
    second = register_nan_hooks(model)
    assert not first.handles
    assert len(model[0]._forward_hooks) == 1
    graph = model(torch.ones(1, 3)).sum() * NAN
    second.remove()
    second.remove()
    graph.backward()
    assert model(x).isnan().all()
    theirs(model)
    theirs(model)
    assert len(model[0]._forward_hooks) == 2


def test_two_layers_of_a_kind_have_two_names():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].bias.data[0] = NAN
    with register_nan_hooks(model), pytest.raises(RuntimeError, match=r"NaN in 1 \(Linear\)"):
        model(torch.ones(1, 3))


def test_infinities_can_be_allowed_and_gradients_left_alone():
    model = Made(lambda h: h.masked_fill(h < 100, -torch.inf))
    with register_nan_hooks(model, inf=False, backward=False):
        assert model(torch.ones(1, 3)).isinf().all()


def test_a_model_is_not_kept_alive():
    import weakref

    model = nn.Linear(2, 2)
    register_nan_hooks(model)
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
