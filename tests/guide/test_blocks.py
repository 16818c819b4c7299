"""Every code block of the guide runs against the lab as it is written, or is listed with a reason.

What a block shows is asserted where a verdict was measured: not all that the guide calls broken
breaks, and not all that it calls right is.
"""

import math
from functools import partial
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from originals import BLOCKS, block, run
from torch import nn

from labkit import guide, trace
from labkit.models.energy import energy_distance
from labkit.models.guards import GUIDE
from labkit.models.likelihood import nb_log_likelihood_guide
from labkit.models.operator import OperatorModel
from labkit.models.vae import NBVAE, elbo_loss, sample_z

matplotlib.use("Agg")

NOT_RUN = {
    "2.2 paths of NaN in the VAE": "a diagram; each of its arrows is a claim that is measured",
    "2.3 paths of NaN in the operator": "a diagram; each of its arrows is a claim",
    "5.1 NaN checklist": "a list of boxes to tick; labkit.checklist runs it",
    "5.2 gradient flow checklist": "a list of boxes to tick; labkit.checklist runs it",
    "5.3 stability checklist": "a list of boxes to tick; labkit.checklist runs it",
}
RUN: set[str] = set()


def of(name: str):
    """Marks a test as the one of a block."""
    RUN.add(name)
    return lambda test: test


def halves(name: str, mark: str = "# ✅") -> list[str]:
    """The two parts of a block that shows the wrong form and the right one."""
    wrong, right = block(name).split(mark)
    return [wrong, right]


def execute(text: str, **supplied) -> dict:
    names = {"torch": torch, **supplied}
    exec(text, names)
    return names


def test_every_block_is_run_or_listed():
    names = {path.stem for path in BLOCKS.glob("*.txt")}
    assert len(names) == 22
    assert names == RUN | NOT_RUN.keys()
    assert not RUN & NOT_RUN.keys()


@pytest.mark.parametrize("name", NOT_RUN)
def test_what_is_listed_is_no_code(name):
    with pytest.raises(SyntaxError):
        compile(block(name), name, "exec")


@pytest.fixture
def lab():
    """The lab's model with one batch."""
    torch.manual_seed(0)
    x, tissue = torch.poisson(torch.full((8, 20), 3.0)), torch.eye(2)[torch.arange(8) % 2]
    return SimpleNamespace(x=x, tissue=tissue, vae=NBVAE(20, 4, 2))


def short(lab):
    """The model as these blocks call it: the tissue, which they leave out, is supplied."""
    return SimpleNamespace(encoder=lambda x: lab.vae.encoder(x, lab.tissue)[0])


def decoded(lab):
    return lambda z: lab.vae.decoder(z, lab.tissue, as_logs=True)[0].square().mean()


def sums(name):
    w = torch.ones(3, requires_grad=True)
    terms = [torch.full((3,), float(i)) for i in range(1, 6)]
    names = run(name, batches=terms, compute=lambda data: (w * data).sum())
    names["result"].backward()
    return names["result"].detach(), w.grad


@of("1.1 accumulation, wrong")
@of("1.1 accumulation, right")
def test_both_ways_to_add_give_the_same_gradient():
    wrong, right = sums("1.1 accumulation, wrong"), sums("1.1 accumulation, right")
    assert torch.equal(wrong[1], torch.full((3,), 15.0))  # of every term, not of the last one
    assert torch.equal(wrong[1], right[1])
    assert torch.equal(wrong[0], right[0])


@of("1.2 no_grad")
def test_no_grad_severs(lab):
    loss = run("1.2 no_grad", model=short(lab), x=lab.x, compute_loss=decoded(lab))["loss"]
    with pytest.raises(RuntimeError, match="does not require grad"):
        loss.backward()
    assert "no graph" in guide.trace_gradient_path(loss, *lab.vae.parameters())["loss"].text


@of("1.3 detach")
def test_detach_severs_what_lies_above_it(lab):
    def step():
        return run("1.3 detach", model=short(lab), x=lab.x, compute_loss=decoded(lab))["loss"]

    report = trace(step, lab.vae)
    assert report.verdict == "severed"
    assert report.culprit.op == "detach"
    step().backward()
    assert lab.vae.encoder.fc_mu.weight.grad is None
    assert lab.vae.decoder.hidden.weight.grad.norm() > 0  # behind it all is well


@of("1.4 item")
def test_item_severs_the_loss_but_not_its_companion(lab):
    loss, regularization = lab.vae.encoder.fc_mu.weight.sum(), lab.vae.decoder.fc_r.bias.sum()
    whole = run("1.4 item", loss=loss, regularization=regularization)
    assert guide.trace_gradient_path(whole["combined_loss"], loss=loss)
    wrong, right = halves("1.4 item")
    names = execute(wrong, loss=loss, regularization=regularization)
    found = guide.trace_gradient_path(names["combined_loss"], lost=loss, kept=regularization)
    assert [line.ok for line in found.lines] == [False, True]  # no error tells that half is lost
    names = execute("#" + right, loss=loss, regularization=regularization)
    assert guide.trace_gradient_path(names["combined_loss"], lost=loss, kept=regularization)


@of("1.5 check_gradient_flow")
def test_check_gradient_flow_as_published(lab, capsys):
    elbo_loss(lab.x, lab.tissue, lab.vae)[0].backward()
    run("1.5 check_gradient_flow")["check_gradient_flow"](lab.vae)
    assert capsys.readouterr().out.count("✅") == 12


@of("1.5 trace_gradient_path")
def test_trace_gradient_path_as_published(lab, capsys):
    x = lab.x.clone().requires_grad_()
    loss = lab.vae.encoder(x, lab.tissue)[0].sum()
    run("1.5 trace_gradient_path")["trace_gradient_path"](loss, x)
    assert "✅ var0" in capsys.readouterr().out


@of("1.5 how to use the tools")
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_how_to_use_the_tools(lab, capsys):
    """With the lab's tools z1 has its gradient; with the guide's it is reported as cut."""
    operator = OperatorModel(32, n_tissues=2, n_perturbations=2)
    condition = torch.eye(2)[torch.arange(10) % 2]
    supplied = {
        "model": lab.vae,
        "operator_model": lambda z, _: operator(z, condition, condition),
        "criterion": energy_distance,
        "target": torch.randn(10, 32),
    }
    original = [run(f"1.5 {tool}")[tool] for tool in ("check_gradient_flow", "trace_gradient_path")]
    for tools, mark in (
        ([guide.check_gradient_flow, guide.trace_gradient_path], "✅ var1"),
        (original, "❌ var1"),
    ):
        capsys.readouterr()
        lab.vae.zero_grad()
        loss = elbo_loss(lab.x, lab.tissue, lab.vae)[0]
        check, path = tools
        run(
            "1.5 how to use the tools",
            loss=loss, check_gradient_flow=check, trace_gradient_path=path, **supplied,
        )  # fmt: skip
        out = capsys.readouterr().out
        assert mark in out
        assert out.count("gradient normal") + out.count("梯度正常") == 12


@of("3.1 defence in depth")
@pytest.mark.parametrize("loss", [1.0, math.nan, math.inf])
def test_the_three_layers(lab, loss):
    supplied = {"self": lab.vae.decoder, "h": torch.randn(8, 128), "eps": 1e-8}
    supplied["loss"] = torch.tensor(loss)
    if math.isfinite(loss):
        assert (run("3.1 defence in depth", **supplied)["mu"] > 0).all()
        return
    with pytest.raises(RuntimeError, match="数值不稳定"):
        run("3.1 defence in depth", **supplied)


@of("3.2 ranges")
def test_the_range_holds_and_the_gradient_is_gone():
    logvar = torch.tensor([-50.0, 0.0, 50.0], requires_grad=True)
    good, bad = halves("3.2 ranges", "# ❌")
    std = execute(good, logvar=logvar)["std"]
    assert std.tolist() == pytest.approx([0.0067, 1.0, 148.4], rel=0.01)  # the guide's numbers
    std.sum().backward()
    assert (logvar.grad == 0).tolist() == [True, False, True]
    assert execute("#" + bad, logvar=torch.tensor(200.0))["std"].isinf()
    assert run("3.2 ranges", logvar=torch.tensor(200.0))["std"].isfinite()  # clamped before


@of("3.3 stable forms")
def test_one_stable_form_is_biased_and_the_other_is_another_number():
    a, b = torch.tensor([1e-30, 2.0]), torch.tensor([2e-30, 1.0])
    names = run("3.3 stable forms", a=a, b=b, eps=1e-8)
    assert names["log_ratio"][0] == 0  # the truth is -0.693: eps drowns both
    assert names["log_ratio"][1] == pytest.approx(math.log(2))
    assert names["diff"][1] == pytest.approx(1 - math.exp(-1))  # and not e² - e
    assert (a / b).log()[0] == pytest.approx(-math.log(2))  # the form that was called unstable


@of("3.4 clipping")
def test_it_clips_first_and_detects_afterwards():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    model(torch.ones(2, 3)).sum().backward()
    run("3.4 clipping", model=model, max_norm=1.0)
    model[0].bias.grad[0] = math.nan
    with pytest.raises(RuntimeError, match="梯度异常: nan"):
        run("3.4 clipping", model=model, max_norm=1.0)
    assert all(p.grad.isnan().all() for p in model.parameters())  # whose fault it was is lost


@of("4.1 debug_forward_pass")
def test_debug_forward_pass_as_published(lab, capsys):
    """It cannot pass the first layer of a model that is conditioned on the tissue."""
    supplied = {"sample_z": sample_z, "nb_log_likelihood": nb_log_likelihood_guide}
    names = run("4.1 debug_forward_pass", **supplied)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        names["debug_forward_pass"](lab.vae, lab.x, lab.tissue)
    assert capsys.readouterr().out.startswith("输入 x: ✅")


@of("4.2 visualize_gradients")
def test_visualize_gradients_as_published(lab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loss = elbo_loss(lab.x, lab.tissue, lab.vae)[0]
    run("4.2 visualize_gradients")["visualize_gradients"](lab.vae, loss)
    plt.close("all")
    assert (tmp_path / "gradient_histogram.png").exists()


@of("4.3 register_nan_hooks")
def test_register_nan_hooks_as_published(lab):
    run("4.3 register_nan_hooks", check_tensor=guide.check_tensor)["register_nan_hooks"](lab.vae)
    assert elbo_loss(lab.x, lab.tissue, lab.vae)[0].isfinite()
    lab.vae.encoder.fc_mu.bias.data[0] = math.nan
    with pytest.raises(RuntimeError, match="NaN in Linear"):
        elbo_loss(lab.x, lab.tissue, lab.vae)


@of("4.4 train_with_crash_recovery")
def test_train_with_crash_recovery_as_published(lab, tmp_path, monkeypatch, capsys):
    """Its elided arguments are supplied: n_epochs and train_step."""
    monkeypatch.chdir(tmp_path)
    optimizer = torch.optim.Adam(lab.vae.parameters())

    def train_step(model, batch):
        optimizer.zero_grad()
        loss = elbo_loss(batch, lab.tissue, model, guards=GUIDE, form="guide")[0]
        loss.backward()
        optimizer.step()
        return loss

    train = run("4.4 train_with_crash_recovery")["train_with_crash_recovery"]
    train(lab.vae, [lab.x] * 3, 2, train_step)
    with pytest.raises(RuntimeError, match="训练崩溃"):
        train(lab.vae, [lab.x, lab.x * math.nan], 1, train_step)
    assert "NaN at epoch 0, batch 1" in capsys.readouterr().out
    assert not any(p.isfinite().all() for p in lab.vae.encoder.fc_mu.parameters())


@of("4.5 test_extreme_inputs")
def test_test_extreme_inputs_as_published(capsys):
    """Under the guide's guards it passes; the lab's own refuse counts of 1e-6."""
    theirs = partial(elbo_loss, guards=GUIDE, form="guide")
    run("4.5 test_extreme_inputs", NBVAE=NBVAE, elbo_loss=theirs)["test_extreme_inputs"]()
    assert "✅" in capsys.readouterr().out
    names = run("4.5 test_extreme_inputs", NBVAE=NBVAE, elbo_loss=elbo_loss)
    with pytest.raises(ValueError, match="expected integers >= 0, got 9"):
        names["test_extreme_inputs"]()
