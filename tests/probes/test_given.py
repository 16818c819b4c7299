"""What is handed in: names for several models, and errors that say what to do."""

import pytest
import torch
from torch import nn

from labkit import trace, watch


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())


def names(model, step):
    return [fate.name for fate in trace(step, model).parameters]


def test_several_models_are_called_by_their_keys_or_places(pair):
    g, d = pair
    step = lambda: d(g(torch.ones(3, 4))).mean()  # noqa: E731
    assert names({"G": g, "D": d}, step) == ["G.weight", "G.bias", "D.0.weight", "D.0.bias"]
    assert names([g, d], step) == ["0.weight", "0.bias", "1.0.weight", "1.0.bias"]
    assert names([g], step) == names(g, step) == ["weight", "bias"]
    assert names({"G": g, "rest": [d, d[0]]}, step)[2] == "rest.0.0.weight"
    torch.nn.init.constant_(d[0].bias, torch.nan)
    report = trace(step, {"G": g, "D": d})
    assert report.culprit.name == "D.0.bias"
    assert next(fate.name for fate in report.harmed) == "G.weight"


def test_the_watch_calls_them_the_same(pair):
    g, d = pair
    optimizer = torch.optim.SGD([*g.parameters(), *d.parameters()], 0.1)
    watched = watch({"G": g, "D": d}, optimizer, on_trigger="skip", folder=None)
    for x in watched.over([torch.full((3, 4), torch.nan)]):
        d(g(x)).mean().backward()
        optimizer.step()
    watched.close()
    trigger = watched.triggers[0]
    assert "gradient of G.weight" in trigger.reason
    assert [fate.name for fate in trigger.report.harmed][:2] == ["G.weight", "G.bias"]


def test_a_model_without_values_is_told_what_to_do(pair):
    meta = nn.Linear(4, 1, device="meta")
    for start in (lambda: trace(lambda: None, meta), lambda: watch(meta, None)):
        with pytest.raises(ValueError, match=r"weight is on the meta device.*to_empty"):
            start()
    with pytest.raises(ValueError, match="a loss with a value; got one on the meta device"):
        trace(lambda: meta(torch.ones(1, 4, device="meta")).sum())


def test_a_trace_is_no_decorator(pair):
    with pytest.raises(TypeError, match=r"no decorator.*with trace"):

        @trace(model=pair[0])
        def step():
            return None


def test_a_module_in_the_place_of_the_step_is_told_about_the_block(pair):
    with pytest.raises(TypeError, match=r"with trace\(model=model\)"), trace(pair[0]):
        pass


def test_a_misspelt_argument_is_told_the_right_name(pair):
    with pytest.raises(TypeError, match="got optimizer; did you mean optimizers"):
        trace(lambda: None, optimizer=())
    with pytest.raises(TypeError, match="expected the arguments step, model, optimizers, steps"):
        trace(lambda: None, verbose=True)
