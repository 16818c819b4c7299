"""`debug_forward_pass` beside the guide's original, and the halving by itself."""

import math
from types import SimpleNamespace

import pytest
import torch
from originals import original
from torch import nn

from labkit.guide import bisect_knob, check_tensor, debug_forward_pass
from labkit.guide.births import first_birth
from labkit.models.energy import energy_distance_guide
from labkit.models.guards import OFF
from labkit.models.likelihood import nb_log_likelihood_guide
from labkit.models.vae import NBVAE, elbo_loss, sample_z


def vae(logvar: float = 0.0) -> NBVAE:
    model = NBVAE(20, 4, 2)
    model.encoder.fc_logvar.bias.data.fill_(logvar)
    return model


X, TISSUE = torch.ones(6, 20), torch.eye(2)[torch.arange(6) % 2]


def unguarded(model, x, tissue):
    return elbo_loss(x, tissue, model, guards=OFF)


def theirs(model, x, tissue):
    """The original, with an input layer that takes the counts alone, as it wants."""
    spread = lambda x: model.encoder.input_layer(torch.cat([x, tissue], 1))  # noqa: E731
    encoder = lambda *given: model.encoder(*given)  # noqa: E731
    encoder.input_layer = spread
    names = {"sample_z": sample_z, "nb_log_likelihood": nb_log_likelihood_guide}
    run = original("debug_forward_pass", **names)
    run(SimpleNamespace(encoder=encoder, decoder=model.decoder), x, tissue)


def test_the_original_cannot_call_the_labs_encoder():
    run = original("debug_forward_pass")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run(vae(), X, TISSUE)
    assert debug_forward_pass(vae(), X, TISSUE)


def test_a_loss_that_overflows_is_seen(capsys):
    torch.manual_seed(0)
    model = vae(88.9)  # the noise stays finite, the KL does not
    model.decoder.hidden.weight.data.mul_(1e-20)
    theirs(model, X, TISSUE)
    out = capsys.readouterr().out
    assert "❌" not in out
    assert "Inf" not in out
    found = debug_forward_pass(model, X, TISSUE, loss=unguarded)
    assert not found
    assert found.birth.op == "sum"  # over the latent axis: the last place that anybody looks at
    assert found.birth.file.endswith("likelihood.py")
    assert "kl: ❌ contains +Inf" in capsys.readouterr().out


class Cloud(nn.Module):
    """Its loss is finite and its gradient is not: each row meets itself."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return energy_distance_guide(self.layer(x), x)


def test_a_birth_in_backward_is_found(capsys):
    found = debug_forward_pass(Cloud(), torch.randn(5, 3), loss=lambda model, x: model(x))
    assert found.birth.node == "SqrtBackward0"
    out = capsys.readouterr().out
    assert "loss: ✅" in out
    assert "gradient of layer.weight: ❌" in out
    assert "trace: ❌ nan: SqrtBackward0, energy.py" in out


class Lottery(nn.Module):
    """Sick in one draw of a hundred or so."""

    def forward(self, x):
        return (torch.rand(()) - 0.01).log() * x


def test_every_run_sees_the_noise_of_this_moment(capsys):
    sick = next(s for s in range(1000) if _draw(s) < 0.01)
    torch.manual_seed(sick)
    before = torch.get_rng_state()
    found = debug_forward_pass(Lottery(), torch.ones(2))
    assert found.birth.op == "log"
    assert found.birth.line > 0
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(sick)
    names = {"model": Lottery()}
    assert names["model"](torch.ones(2)).isnan().all()
    assert names["model"](torch.ones(2)).isfinite().all()  # the original draws anew: well


def _draw(seed: int) -> float:
    torch.manual_seed(seed)
    return float(torch.rand(()))


def test_buffers_and_gradients_stay():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = model[1].running_mean.clone()
    debug_forward_pass(model, torch.full((4, 3), math.nan), loss=lambda m, x: m(x).sum())
    assert torch.equal(model[1].running_mean, before)
    assert model[0].weight.grad is None


def test_a_bad_input_or_parameter_is_no_birth(capsys):
    model = nn.Linear(3, 3)
    model.bias.data[0] = math.nan
    found = debug_forward_pass(model, torch.ones(2, 3))
    assert not found
    assert found.birth is None
    assert "parameter bias: ❌" in capsys.readouterr().out


def test_a_mask_of_infinities_is_no_birth():
    def program():
        scores = torch.zeros(3, 3) + torch.full((3, 3), -math.inf).triu(1)
        scores = scores.softmax(-1).masked_fill(torch.eye(3) > 0, -math.inf)
        scores = torch.nn.functional.pad(scores, (0, 1), value=-math.inf)
        return (scores.exp() - 0.5).log()  # NaN, here

    assert first_birth(program).op == "log"


def test_memory_that_is_not_yet_written_is_no_birth():
    def program():
        return torch.ones(3).new_empty(3).fill_(1.0).log()

    torch.use_deterministic_algorithms(True)  # fills new memory with NaN
    try:
        assert torch.empty(3).isnan().all()
        assert first_birth(program) is None
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("place", [0, 1, 7, 63, 64, 99])
def test_halving_finds_the_place_in_a_hundred(place):
    runs = []

    def program():
        runs.append(1)
        x = torch.ones(())
        for i in range(100):
            x = x.mul(0.5).clamp(min=1.0) if i != place else x.sub(1).log()
        return x

    birth = first_birth(program)
    assert birth.op == "log"
    assert birth.runs == len(runs) <= math.ceil(math.log2(birth.total)) + 2
    assert birth.inputs == ("✅ min=0.00e+00, max=0.00e+00, mean=0.00e+00, zeros 100% (1/1)",)


def test_a_healthy_program_has_no_birth():
    assert first_birth(lambda: torch.ones(3).exp().sum()) is None


def test_a_program_that_does_not_repeat_itself_is_refused():
    count = iter(range(100))

    def program():
        x = torch.ones(2) * 1.0
        return (x - 2).log() if next(count) == 0 else (x + 2).log()

    with pytest.raises(RuntimeError, match="did not repeat itself"):
        first_birth(program)


def test_the_knob_is_found_to_the_float():
    model = vae()
    before = model.encoder.fc_logvar.bias.detach().clone()
    knob, between = model.encoder.fc_logvar.bias.data.fill_, (0.0, 200.0)
    found = debug_forward_pass(model, X, TISSUE, loss=unguarded, knob=knob, between=between)
    assert torch.equal(model.encoder.fc_logvar.bias, before)
    assert found.edge.broken == torch.nextafter(torch.tensor(found.edge.healthy), torch.tensor(1e9))
    state = torch.get_rng_state()
    for value, well in ((found.edge.healthy, True), (found.edge.broken, False)):
        torch.set_rng_state(state)
        other = vae(value)
        unguarded(other, X, TISSUE)[0].backward()
        assert all(p.grad.isfinite().all() for p in other.parameters()) is well


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_edge_of_exp(dtype):
    def broken(v):
        return not torch.tensor(v, dtype=dtype).exp().isfinite()

    found = bisect_knob(broken, 0.0, 1000.0, dtype)
    other = bisect_knob(broken, 1000.0, -5.0, dtype)
    assert (found.healthy, found.broken) == (other.healthy, other.broken)
    assert found.healthy == pytest.approx(math.log(torch.finfo(dtype).max), rel=1e-7)
    step = torch.nextafter(torch.tensor(found.healthy, dtype=dtype), torch.tensor(1e4, dtype=dtype))
    assert found.broken == step


def test_an_edge_among_negative_numbers_and_in_half_precision():
    assert bisect_knob(lambda v: v < 0, -1.0, 1.0).broken == -(2.0**-149)
    assert bisect_knob(lambda v: v * 4 > 65504, 0.0, 6e4, torch.float16).broken == 16384.0


@pytest.mark.parametrize(
    ("ends", "words"),
    [((0, 1), "are healthy"), ((5, 9), "are broken"), ((0, math.inf), "two finite ends")],
)
def test_ends_must_differ(ends, words):
    with pytest.raises(ValueError, match=words):
        bisect_knob(lambda v: v > 3, *ends)


def test_the_lines_read_as_in_the_guide(capsys):
    debug_forward_pass(nn.Linear(3, 1), torch.ones(2, 3))
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"input x: {check_tensor(torch.ones(2, 3))}"
