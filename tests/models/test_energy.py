"""Energy distance against float64 subtraction, closed forms and the packages that people use."""

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from scipy.spatial.distance import cdist
from torch import Tensor
from torch.autograd import gradcheck

from labkit.models.energy import (
    Reference,
    energy_distance,
    energy_distance_guide,
    energy_distance_half,
    energy_distance_squared,
)

VALUE = 1e-6  # of the mean distance: the terms cancel where x is near y
GRADIENT = 1e-5  # of the cross term's gradient, for the same reason
DOUBLE = 1e-12  # of the mean distance, in float64
GRADIENT_DOUBLE = 1e-9  # of the cross term's; a pair just not near enough to be subtracted has 1e-8
SIGMAS = 4.5  # of a mean over draws: once in 100 000 seeds
N, M, D = 700, 600, 32  # more than one block, and blocks that are not full


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def counts(n: int, rate: float, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.poisson(torch.full((n, D), rate), generator=g).log1p()


def shuffled(x: Tensor, seed: int) -> Tensor:
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]


X, Y = randn(N, D, seed=1), 0.3 + 1.2 * randn(M, D, seed=2)
FAR = torch.full((D,), 1e4 / D**0.5)


def two(x: Tensor, share: float) -> Tensor:
    """Two clusters 1e4 apart, the far one last."""
    return torch.cat([x[: int(len(x) * share)], x[int(len(x) * share) :] + FAR])


HARD = {
    "plain": (X, Y),
    "offset 1e3": (X + 1e3, Y + 1e3),
    "offset 1e5": (X + 1e5, Y + 1e5),
    "tight": (1 + 1e-3 * X, 1 + 1e-3 * Y),
    "near duplicates 1e-2": (X, X[:M] + 1e-2 * Y),
    "near duplicates 1e-4": (X, X[:M] + 1e-4 * Y),
    "near duplicates 1e-6": (X, X[:M] + 1e-6 * Y),
    "shared rows": (X, torch.cat([X[:200], Y[200:]])),
    "the same sample": (X, shuffled(X, 3)),
    "two clusters sorted": (two(X, 0.5), two(Y, 0.5)),
    "two clusters shuffled": (shuffled(two(X, 0.3), 1), shuffled(two(Y, 0.6), 2)),
    "eight clusters": tuple(
        s + 1e3 * randn(8, D, seed=5)[torch.arange(len(s)) % 8] for s in (X, Y)
    ),
    "one outlier at 1e6": (torch.cat([X[1:], X[:1] + 1e6]), Y),
    "one outlier at 1e30": (torch.cat([X[1:], X[:1] + 1e30]), Y),
    "Cauchy": (X / randn(N, D, seed=3), Y / randn(M, D, seed=4)),
    "log counts": (counts(N, 0.1, 1), counts(M, 0.12, 2)),
    "log counts in 6 axes": (counts(N, 0.3, 1)[:, :6], counts(M, 0.4, 2)[:, :6]),
    "rank one": (500 + X[:, :1] * torch.ones(D), 500 + Y[:, :1] * torch.ones(D)),
    "one axis": (X[:, :1], Y[:, :1]),
    "two axes": (X[:, :2], Y[:, :2]),
    "scale 1e-20": (1e-20 * X, 1e-20 * Y),
    "scale 1e18": (1e18 * X, 1e18 * Y),
    "scale 1e37": (1e37 * X, 1e37 * Y),
    "all equal": (torch.ones(N, D), torch.ones(M, D)),
}


def sums(x: Tensor, y: Tensor) -> tuple[float, Tensor, Tensor]:
    """Sum of all distances and its gradients, every pair subtracted in float64."""
    x, y = x.double(), y.double()
    total, to_x, to_y = 0.0, torch.zeros_like(x), torch.zeros_like(y)
    for rows, part in zip(x.split(100), to_x.split(100), strict=True):
        difference = rows[:, None] - y
        length = difference.norm(dim=2)
        direction = difference / length.where(length > 0, 1.0)[..., None]
        total += float(length.sum())
        part.copy_(direction.sum(1))
        to_y -= direction.sum(0)
    return total, to_x, to_y


def truth(x: Tensor, y: Tensor, biased: bool = False):
    """Value, gradients, mean distance, the cross term's gradients."""
    n, m = len(x), len(y)
    (xy, to_x, to_y), (xx, own_x, _), (yy, own_y, _) = sums(x, y), sums(x, x), sums(y, y)
    between, nn, mm = 2 / (n * m), n * (n - 1 + biased), m * (m - 1 + biased)
    value = between * xy - xx / nn - yy / mm
    gradients = between * to_x - 2 * own_x / nn, between * to_y - 2 * own_y / mm
    return value, gradients, xy / (n * m), (between * to_x, between * to_y)


def differentiated(x: Tensor, y: Tensor | Reference, **options) -> tuple[Tensor, list[Tensor]]:
    leaves = [x.clone().requires_grad_()]
    if isinstance(y, Tensor):
        leaves.append(y.clone().requires_grad_())
    value = energy_distance(*leaves, *([] if len(leaves) == 2 else [y]), **options)
    value.backward()
    return value.detach(), [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("case", HARD)
def test_value_and_gradients_hold_where_others_break(case):
    x, y = HARD[case]
    value, gradients, mean, cross = truth(x, y)
    found, got = differentiated(x, y)
    assert abs(float(found) - value) <= VALUE * mean
    for g, want, scale in zip(got, gradients, cross, strict=True):
        assert g.isfinite().all()
        assert (g - want).norm() <= GRADIENT * scale.norm()
        assert (g - want).norm(dim=1).max() <= GRADIENT * scale.norm(dim=1).max()


@pytest.mark.parametrize("case", ["plain", "offset 1e5", "near duplicates 1e-4", "log counts"])
@pytest.mark.parametrize("biased", [True, False])
def test_float64(case, biased):
    x, y = (s.double()[:150, :7] for s in HARD[case])
    value, gradients, mean, cross = truth(x, y, biased)
    found, got = differentiated(x, y, biased=biased)
    assert abs(float(found) - value) <= DOUBLE * mean
    for g, want, scale in zip(got, gradients, cross, strict=True):
        assert (g - want).norm() <= GRADIENT_DOUBLE * scale.norm()


@pytest.mark.parametrize("biased", [True, False])
def test_gradcheck(biased):
    x, y = (randn(n, 3, seed=n, dtype=torch.float64).requires_grad_() for n in (6, 5))
    x.data[5] = x.data[4]  # a pair that coincides is a kink: keep it fixed
    free = x.detach()[:5].clone().requires_grad_()
    fixed = Reference.of(y.detach())
    assert gradcheck(lambda a, b: energy_distance(a, b, biased=biased), (free, y))
    assert gradcheck(lambda a: energy_distance(a, y.detach(), biased=biased), free)
    assert gradcheck(lambda b: energy_distance(free.detach(), b, biased=biased), y)
    assert gradcheck(lambda a: energy_distance(a, fixed, biased=biased), free)
    assert gradcheck(energy_distance_half, (free, y))
    assert gradcheck(lambda a, b: energy_distance_squared(a, b, biased=biased), (free, y))


def test_coincident_rows_have_gradient_zero():
    _, (to_x, to_y) = differentiated(torch.ones(3, 2), torch.ones(4, 2))
    assert not to_x.any()
    assert not to_y.any()


def test_a_reference_is_the_same_sample_and_costs_its_own_distances_once(monkeypatch):
    from labkit.models import energy

    calls = []
    real = energy.distance_sum
    monkeypatch.setattr(energy, "distance_sum", lambda *a, **k: calls.append(a) or real(*a, **k))
    reference = Reference.of(Y)
    assert len(calls) == 1
    for _ in range(2):
        value, (to_x,) = differentiated(X, reference)
    assert len(calls) == 1 + 2 * 2  # across, and x with itself
    full, (want, _) = differentiated(X, Y)
    assert abs(float(value - full)) <= VALUE * float(torch.cdist(X, Y).mean())
    assert torch.equal(to_x, want)


def test_the_upstream_gradient_is_a_factor():
    x = X[:20].clone().requires_grad_()
    (-3 * energy_distance(x, Y)).backward()
    torch.testing.assert_close(x.grad, -3 * differentiated(X[:20], Y)[1][0])


def test_without_gradients_the_value_is_the_same():
    x, (value, _) = X.clone().requires_grad_(), differentiated(X, Y)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            again = energy_distance(x, Y)
        assert not again.requires_grad
        assert abs(float(again - value)) <= VALUE * float(torch.cdist(X, Y).mean())


def test_without_gradients_none_are_computed(monkeypatch):
    from labkit.models import energy

    real, gradients = energy.distance_sum, []

    def spied(*args, **options):
        result = real(*args, **options)
        gradients.extend(result[1:])
        return result

    monkeypatch.setattr(energy, "distance_sum", spied)
    with torch.no_grad():
        energy_distance(X.clone().requires_grad_(), Y)
    assert gradients == [None] * 6


@pytest.mark.parametrize("case", ["plain", "log counts"])
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(half, case):
    x, y = HARD[case]
    plain, gradients = differentiated(x, y)
    alone = energy_distance(x, Reference.of(y))
    with torch.autocast("cpu", dtype=half):
        cast, again = differentiated(x, y)
        assert torch.equal(energy_distance(x, Reference.of(y)), alone)
    assert torch.equal(cast, plain)
    assert all(torch.equal(a, b) for a, b in zip(gradients, again, strict=True))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(half):
    x, y = X.to(half), Y.to(half)
    value, (to_x, to_y) = differentiated(x, y)
    full, (wide_x, wide_y) = differentiated(x.float(), y.float())
    assert torch.equal(value, full)
    assert torch.equal(to_x, wide_x.to(half))
    assert torch.equal(to_y, wide_y.to(half))


def test_a_second_derivative_is_an_error_and_never_silence():
    x, y = X[:9].clone().requires_grad_(), Y[:8].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy_distance(x, y), x, create_graph=True)
    for wrt in (x, y):
        with pytest.raises(NotImplementedError, match="first derivative only"):
            torch.autograd.grad(gradient.square().sum(), wrt, retain_graph=True)
    penalised = energy_distance(x, y) + gradient.square().sum()
    with pytest.raises(NotImplementedError, match=r"Detach the gradient"):
        penalised.backward()


def test_two_runs_give_the_same_bits():
    first, second = differentiated(X, Y), differentiated(X, Y)
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))


def test_what_waits_for_backward_is_linear_in_the_rows():
    def saved(form) -> int:
        sizes = []
        hooks = torch.autograd.graph.saved_tensors_hooks
        with hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            form(X.clone().requires_grad_(), Y)
        return sum(sizes)

    assert saved(energy_distance) <= 3 * X.numel() + Y.numel()
    assert saved(lambda x, y: energy_distance_guide(x, y, chunk=50)) > 2 * N * M


PEAK = """
import torch
from labkit.models.energy import energy_distance
torch.set_num_threads(1)
x, y = (torch.randn(6000, 32).requires_grad_() for _ in range(2))
energy_distance(x[:600], y[:600]).backward()  # loads what is loaded once
def peak(): return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
before = peak()
energy_distance(x, y).backward()
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_forward_and_backward_add_little_memory():
    run = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 40_000  # kB; one distance matrix of it is 144 000


def mean_norm(d: int, shift: float, scale: float) -> float:
    """E|z| for z normal in d dimensions with mean of length `shift` and this standard deviation."""
    ratio = math.exp(special.gammaln((d + 1) / 2) - special.gammaln(d / 2))
    return scale * math.sqrt(2) * ratio * special.hyp1f1(-0.5, d / 2, -(shift**2) / scale**2 / 2)


@pytest.mark.parametrize(("d", "shift", "sigma"), [(1, 0.5, 1.0), (5, 0.0, 1.5), (32, 1.0, 0.8)])
def test_the_closed_form_of_gaussians(d, shift, sigma):
    rows, draws = 60, 300
    z = randn(draws, 2, rows, d, seed=d, dtype=torch.float64)
    centre = shift * torch.eye(d, dtype=torch.float64)[0]
    found = torch.stack([energy_distance(x, sigma * y + centre) for x, y in z])
    cross = mean_norm(d, shift, math.sqrt(1 + sigma**2))
    want = 2 * cross - (1 + sigma) * mean_norm(d, 0.0, math.sqrt(2))
    assert abs(found.mean() - want) <= SIGMAS * found.std() / draws**0.5


def test_only_the_v_statistic_is_biased():
    rows, draws = 16, 400
    pairs = randn(draws, 2, rows, 4, seed=9, dtype=torch.float64)
    plain = torch.stack([energy_distance(x, y) for x, y in pairs])
    biased = torch.stack([energy_distance(x, y, biased=True) for x, y in pairs])
    error = SIGMAS * plain.std() / draws**0.5
    assert abs(plain.mean()) <= error
    assert abs(biased.mean() - 2 / rows * mean_norm(4, 0.0, math.sqrt(2))) <= error
    assert (biased >= 0).all()
    assert 0.3 < (plain < 0).double().mean() < 0.7  # take no root of it


def test_the_number_of_pertpy():
    x, y = X.numpy(), Y.numpy()  # its Edistance: means of whole distance matrices
    want = 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()
    assert abs(float(energy_distance(X, Y, biased=True)) - want) <= VALUE * cdist(x, y).mean()


def test_the_number_of_scperturb():
    x, y = X.numpy(), Y.numpy()  # its edist: squared, within sums over n (n - 1)
    within = [cdist(s, s, "sqeuclidean").sum() / len(s) / (len(s) - 1) for s in (x, y)]
    want = 2 * cdist(x, y, "sqeuclidean").mean() - sum(within)
    torch.testing.assert_close(float(energy_distance_squared(X, Y)), want, rtol=1e-6, atol=0)


def test_the_number_of_scipy():
    x, y = X[:, :1], Y[:, :1]
    want = stats.energy_distance(x[:, 0].numpy(), y[:, 0].numpy()) ** 2
    assert abs(float(energy_distance(x, y, biased=True)) - want) <= VALUE * cdist(x, y).mean()


def test_the_number_of_geomloss():
    """Its energy loss: half of the V-statistic, squares clamped at 1e-8."""

    def mean(a: Tensor, b: Tensor) -> Tensor:
        squares = a.square().sum(1, keepdim=True) - 2 * a @ b.t() + b.square().sum(1)
        return squares.clamp_min(1e-8).sqrt().mean()

    x, y = X.double(), Y.double()
    want = mean(x, y) - mean(x, x) / 2 - mean(y, y) / 2
    floor = 1e-4  # its distance of a row to itself, in two terms of weight 1/2 and 1/n
    torch.testing.assert_close(energy_distance_half(x, y), want, rtol=0, atol=floor / M)


def test_squared_distances_are_blind_to_spread():
    x = randn(400, 5, seed=1, dtype=torch.float64)
    x -= x.mean(0)
    assert abs(energy_distance_squared(x, 3 * x, biased=True)) < DOUBLE
    assert energy_distance(x, 3 * x) > 1


def test_squared_distances_hold_far_from_the_origin():
    near, far = energy_distance_squared(X, Y), energy_distance_squared(X + 1e5, Y + 1e5)
    shifted = energy_distance_squared((X + 1e5).double(), (Y + 1e5).double())
    torch.testing.assert_close(far.double(), shifted, rtol=1e-6, atol=0)
    torch.testing.assert_close(far, near, rtol=1e-2, atol=0)  # 1e5 + x keeps 2 decimals


class TestTheGuide:
    """Its form is right on paper, and kept as the broken one."""

    def test_agrees_where_nothing_cancels(self):
        x, y = X.double(), Y.double()
        want = energy_distance(x, y, biased=True)
        noise = 1e-7  # the root of what rounding leaves on the diagonal
        for chunk in (7, 100_000):
            got = energy_distance_guide(x, y, chunk=chunk)
            torch.testing.assert_close(got, want, rtol=0, atol=noise)

    def test_has_a_fine_value_and_gradients_that_are_nan(self):
        x = X.clone().requires_grad_()
        value = energy_distance_guide(x, Y)
        value.backward()
        assert value.isfinite()
        assert not x.grad.isfinite().all()

    def test_loses_its_digits_far_from_the_origin(self):
        want = energy_distance(X.double(), Y.double(), biased=True)
        assert abs(energy_distance_guide(X + 1e4, Y + 1e4) - want) > 0.1 * want

    def test_overflows_at_half_the_exponents(self):
        assert not energy_distance_guide(2e19 * X, 2e19 * Y).isfinite()
        scaled = energy_distance(2e19 * X, 2e19 * Y) / 2e19
        torch.testing.assert_close(scaled, energy_distance(X, Y), rtol=1e-4, atol=0)


BAD = [
    (torch.ones(4), torch.ones(4, 2), ValueError, r"\(row, axis\), got \(4,\)"),
    (torch.ones(4, 2), torch.ones(4, 2, 2), ValueError, r"\(row, axis\), got \(4, 2, 2\)"),
    (torch.ones(4, 0), torch.ones(4, 0), ValueError, r"\(row, axis\), got \(4, 0\)"),
    (torch.ones(4, 2), torch.ones(4, 3), ValueError, "as many axes in y as in x, 2, got 3"),
    (torch.ones(1, 2), torch.ones(4, 2), ValueError, "at least 2 rows, got 1; biased=True"),
    (torch.ones(4, 2), torch.ones(0, 2), ValueError, "at least 2 rows, got 0$"),
    (torch.ones(4, 2).long(), torch.ones(4, 2), TypeError, r"int64; use x.float\(\)"),
    (torch.ones(4, 2), torch.ones(4, 2).double(), TypeError, "float32, got torch.float64"),
]


@pytest.mark.parametrize(("x", "y", "error", "message"), BAD)
@pytest.mark.parametrize("form", [energy_distance, energy_distance_squared])
def test_bad_input_gets_a_clear_error(form, x, y, error, message):
    with pytest.raises(error, match=message):
        form(x, y)


def test_a_reference_is_checked_too():
    with pytest.raises(TypeError, match=r"float32, got torch.float64"):
        energy_distance(X, Reference.of(Y.double()))
    with pytest.raises(ValueError, match="axes"):
        energy_distance(X, Reference.of(Y[:, :3]))
    with pytest.raises(ValueError, match="at least 2 rows, got 1"):
        energy_distance(X, Reference.of(Y[:1]))


def test_one_row_is_enough_for_the_v_statistic():
    x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    value, (to_x, to_y) = differentiated(x, y, biased=True)
    assert value == 10
    torch.testing.assert_close(to_x, torch.tensor([[-1.2, -1.6]]))
    torch.testing.assert_close(to_y, torch.tensor([[1.2, 1.6]]))
    with pytest.raises(ValueError, match="at least 1 rows, got 0"):
        energy_distance(x[:0], y, biased=True)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_seen(bad):
    x = X.clone()
    x[3, 4] = bad
    value, (to_x, to_y) = differentiated(x, Y)
    assert value.isnan()
    assert to_x.isnan().any()
    assert to_y.isnan().any()


samples = st.integers(2, 25)
NEAR = {torch.float32: 4 * VALUE, torch.float64: 4 * DOUBLE}  # two runs, each with its error


@settings(max_examples=60, deadline=None)
@given(
    n=samples,
    m=samples,
    d=st.integers(1, 6),
    seed=st.integers(0, 99),
    copies=st.integers(0, 5),
    power=st.integers(-60, 60),
    biased=st.booleans(),
    dtype=st.sampled_from(list(NEAR)),
)
def test_what_any_energy_distance_obeys(n, m, d, seed, copies, power, biased, dtype):
    x = randn(n, d, seed=seed, dtype=dtype)
    y = torch.cat([0.5 + randn(m, d, seed=seed + 100, dtype=dtype), x[:copies]])
    value, (to_x, to_y) = differentiated(x, y, biased=biased)
    bound = NEAR[dtype] * float(truth(x, y)[2])

    swapped, (of_y, of_x) = differentiated(y, x, biased=biased)
    assert abs(swapped - value) <= bound
    torch.testing.assert_close(of_x, to_x, rtol=0, atol=GRADIENT)
    torch.testing.assert_close(of_y, to_y, rtol=0, atol=GRADIENT)

    step = torch.full((d,), 2.0**-3, dtype=dtype)  # moves float32 by whole digits, nearly
    assert abs(energy_distance(x + step, y + step, biased=biased) - value) <= 3 * bound

    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    permuted, (rows, _) = differentiated(x[order], y, biased=biased)
    assert abs(permuted - value) <= bound
    torch.testing.assert_close(rows, to_x[order], rtol=0, atol=GRADIENT)

    scaled, (same, _) = differentiated(2.0**power * x, 2.0**power * y, biased=biased)
    assert abs(scaled * 2.0**-power - value) <= bound
    torch.testing.assert_close(same, to_x, rtol=0, atol=GRADIENT)

    if biased:
        assert value >= -bound
        assert abs(energy_distance(x, x.flip(0), biased=True)) <= bound
