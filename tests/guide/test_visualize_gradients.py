"""`visualize_gradients` beside the guide's original, at each of its blind spots."""

import math

import matplotlib
import pytest
import torch
from originals import original
from torch import nn

from labkit.draw import visualize_gradients
from labkit.models.vae import NBVAE, elbo_loss

matplotlib.use("Agg")
import matplotlib.pyplot as plt

theirs = original("visualize_gradients")
NAN, INF = math.nan, math.inf


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")


class Bare(nn.Module):
    """Two parameters; the gradient of the first is what is given."""

    def __init__(self, gradient, dtype=torch.float32):
        super().__init__()
        self.sick = nn.Parameter(torch.zeros(4, dtype=dtype))
        self.well = nn.Parameter(torch.ones(4, dtype=dtype))
        self.gradient = torch.tensor(gradient, dtype=dtype)

    def loss(self):
        return (self.sick * self.gradient).sum() + (self.well * 2).sum()


@pytest.mark.filterwarnings("ignore:All-NaN slice")
@pytest.mark.parametrize(
    ("gradient", "error"),
    [([1, INF, 1, 1], "not finite"), ([NAN] * 4, "not finite")],
)
def test_what_ends_theirs_is_drawn(gradient, error):
    model = Bare(gradient)
    with pytest.raises(ValueError, match=error):
        theirs(model, model.loss())
    picture = visualize_gradients(model, model.loss())
    assert "sick: inf" in picture.labkit_alt or "sick: nan" in picture.labkit_alt


def texts(picture) -> list[str]:
    return [text.get_text() for text in picture.axes[0].texts]


def test_one_nan_is_counted():
    model = Bare([1, NAN, 1, 1])
    theirs(model, model.loss())
    drawn = sum(p.get_height() for p in plt.gcf().axes[0].patches)
    assert drawn == 3  # of 4, and no word about it
    picture = visualize_gradients(model, model.loss())
    assert "sick: nan" in picture.labkit_alt
    assert "1" in texts(picture)


def test_bfloat16_is_drawn():
    model = Bare([1, 2, 3, 4], torch.bfloat16)
    with pytest.raises(TypeError, match="BFloat16"):
        theirs(model, model.loss())
    assert "sick: ok" in visualize_gradients(model, model.loss()).labkit_alt


def vae():
    x, tissue = torch.ones(6, 20), torch.eye(2)[torch.arange(6) % 2]
    model = NBVAE(20, 4, 2)
    return model, lambda: elbo_loss(x, tissue, model)[0]


def test_all_twelve_parameters_are_drawn():
    model, loss = vae()
    theirs(model, loss())
    titles = " ".join(axes.get_title() for axes in plt.gcf().axes)
    names = [name for name, _ in model.named_parameters()]
    assert sum(name in titles for name in names) == 6
    words = texts(visualize_gradients(model, loss()))
    assert set(names) <= set(words)


def test_the_worst_come_first_and_the_rest_is_counted():
    model = nn.ModuleList(Bare([1, 2, 3, 4] if i != 19 else [INF] * 4) for i in range(20))
    picture = visualize_gradients(model, sum(part.loss() for part in model))
    assert "19.sick: inf" in picture.labkit_alt
    assert any("and 27 more parameters, all well" in text for text in texts(picture))


def test_no_gradient_is_doubled():
    model, loss = vae()
    torch.manual_seed(0)
    value = loss()
    visualize_gradients(model, value)
    assert all(p.grad is None for p in model.parameters())
    value.backward()
    ours = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    torch.manual_seed(0)
    value = loss()
    theirs(model, value)
    value.backward()
    assert all(torch.equal(p.grad, 2 * g) for p, g in zip(model.parameters(), ours, strict=True))


def test_after_a_backward_it_draws_what_is_held():
    model, loss = vae()
    value = loss()
    value.backward()
    with pytest.raises(RuntimeError, match="second time"):
        theirs(model, value)
    held = visualize_gradients(model, value)
    assert texts(held) == texts(visualize_gradients(model))
    assert "no gradient" not in texts(held)


def test_no_figure_stays_open():
    model = Bare([1, 2, 3, 4])
    theirs(model, model.loss())
    assert len(plt.get_fignums()) == 1
    plt.close("all")
    visualize_gradients(model, model.loss(), "gradients.png")
    assert not plt.get_fignums()
    with open("gradients.png", "rb") as file:
        assert file.read(4) == b"\x89PNG"


def test_missing_zero_and_small_gradients_are_told():
    model = Bare([0, 0, 0, 0])
    alt = visualize_gradients(model, model.loss()).labkit_alt
    assert "sick: zero" in alt
    assert "well: none" in visualize_gradients(model, model.sick.sum()).labkit_alt
    model = Bare([1e-9, 1e-9, 0, 0])
    assert "sick: vanishing" in visualize_gradients(model, model.loss()).labkit_alt
