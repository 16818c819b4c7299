"""Sums of distances and their gradients against plain subtraction in float64."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from labkit.kernels import pairwise, tile
from labkit.kernels.cloud import Cloud
from labkit.kernels.pairwise import distance_sum, weighed_sum
from labkit.kernels.tile import Tiling

# of the sum, and of the largest gradient: a few roundings of a number that many terms make up
# In float64 the sum takes terms of |a|²/d, and a pair just not near has d = 1e-4 |a|: each of some
# four roundings is 1.1e-12 of |a|, and a small cloud with one far point has no more than a few |a|.
VALUE = {torch.float32: 1e-6, torch.float64: 5e-12}
GRADIENT = {torch.float32: 1e-5, torch.float64: 1e-7}
WAYS = {
    "plain": Tiling(block=7),
    "everything by subtraction": Tiling(block=7, near=1e9, near_double=1e9, dense=2.0, chunk=5),
    "everything in float64": Tiling(block=7, near=1e9, dense=0.0),
    "nothing is near": Tiling(block=64),
}


def truth(x: Tensor, y: Tensor) -> tuple[float, Tensor, Tensor]:
    """The sum over all pairs and its gradients, every pair subtracted."""
    difference = x.double()[:, None] - y.double()[None]
    length = difference.norm(dim=2)
    direction = difference / length.where(length > 0, 1.0)[..., None]
    return float(length.sum()), direction.sum(1), -direction.sum(0)


def check(x: Tensor, y: Tensor, tiling: Tiling) -> None:
    """Both clouds together and each with itself, to the bounds above."""
    a, b = Cloud.of(x, tiling.block), Cloud.of(y, tiling.block)
    for p, q, c, d in ((x, y, a, b), (x, x, a, a), (y, y, b, b)):
        total, to_p, to_q = truth(p, q)
        found, to_c, to_d = distance_sum(c, d, tiling=tiling)
        if p is q:
            to_p = to_q = 2 * to_p
        assert abs(found - total) <= VALUE[x.dtype] * total
        for got, want, pairs in ((to_c, to_p, len(q)), (to_d, to_q, len(p))):
            assert (got.double() - want).abs().max() <= GRADIENT[x.dtype] * pairs


def gaussian(n: int, d: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_through_a_tile_gives_the_same(way, dtype):
    clusters = gaussian(60, 3, 1, dtype)
    clusters[::2] += 1e3
    x = torch.cat([clusters, clusters[:9], clusters[:5] + 1e-5])
    y = torch.cat([gaussian(40, 3, 2, dtype), clusters[20:30]])
    check(x, y, WAYS[way])


@pytest.mark.parametrize("way", ["_subtracted", "_in_double"])
def test_the_ways_are_taken(way, monkeypatch):
    calls = []
    real = getattr(tile, way)
    monkeypatch.setattr(tile, way, lambda *a: calls.append(way) or real(*a))
    tight = torch.cat([gaussian(20, 3, 1), gaussian(20, 3, 2) + 1e4])
    x = torch.cat([gaussian(40, 3, 3), gaussian(3, 3, 3)]) if way == "_subtracted" else tight
    check(x, x + 1e-4, Tiling())
    assert calls


def far_apart(n: int) -> dict[str, Tensor]:
    """Points that a matrix product can decide, if each tile is seen from the right place."""
    x = gaussian(n, 8, 1)
    mixed = torch.randperm(n, generator=torch.Generator().manual_seed(2))
    half = (mixed < n // 2).float()[:, None]
    return {
        "two outliers": torch.cat([x[2:], x[:1] + 1e6, x[1:2] - 1e6]),
        "two clusters": x + half * torch.tensor([0.0, 0.0, 0.0, 1e4, 0.0, 0.0, 0.0, 0.0]),
        "Cauchy": x / gaussian(n, 8, 3),
    }


@pytest.mark.parametrize("case", ["two outliers", "two clusters", "Cauchy"])
def test_points_far_apart_cost_no_float64(case, monkeypatch):
    monkeypatch.setattr(tile, "_in_double", lambda *a: pytest.fail("a tile went to float64"))
    check(far_apart(256)[case], gaussian(256, 8, 4), Tiling(block=64))


@settings(max_examples=100, deadline=None)
@given(
    n=st.integers(1, 30),
    m=st.integers(1, 30),
    d=st.integers(1, 5),
    seed=st.integers(0, 99),
    power=st.integers(-37, 34),
    spread=st.sampled_from([0.0, 1e-6, 1e-3, 1.0]),
    offset=st.sampled_from([0.0, 1.0, -1e3]),
    copies=st.integers(0, 10),
    block=st.integers(1, 9),
    dtype=st.sampled_from(list(VALUE)),
)
def test_any_two_clouds(n, m, d, seed, power, spread, offset, copies, block, dtype):
    x = offset + spread * gaussian(n, d, seed, dtype)
    y = torch.cat([gaussian(m, d, seed + 100, dtype), x[:copies]])
    check(10.0**power * x, 10.0**power * y, Tiling(block=block))


@settings(max_examples=100, deadline=None)
@given(
    data=st.lists(
        st.tuples(
            *[
                st.sampled_from(
                    [0.0, -0.0, 1.0, 1e-45, -1e-42, 1e-38, 1e-20, 1e19, -3e19, 1.7e38, -3.4e38]
                )
            ]
            * 2
        ),
        min_size=2,
        max_size=12,
    )
)
def test_zeros_denormals_and_the_largest_numbers(data):
    x = torch.tensor(data)
    check(x[::2], x[1::2], Tiling(block=4))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_not_hidden(bad):
    x, y = gaussian(9, 3, 1), gaussian(8, 3, 2)
    x[4, 1] = bad
    for p, q in itertools.permutations([Cloud.of(x, 4), Cloud.of(y, 4)]):
        total, to_p, to_q = distance_sum(p, q, tiling=Tiling(block=4))
        assert total != total
        assert to_p.isnan().any()
        assert to_q.isnan().any()


def test_an_empty_cloud_adds_nothing():
    a, b = Cloud.of(torch.empty(0, 3)), Cloud.of(torch.ones(4, 3))
    total, to_a, to_b = distance_sum(a, b)
    assert total == 0
    assert to_a.shape == (0, 3)
    assert torch.equal(to_b, torch.zeros(4, 3))


def test_gradients_that_nobody_wants_are_not_computed():
    a, b = Cloud.of(gaussian(30, 3, 1)), Cloud.of(gaussian(20, 3, 2))
    total, to_a, to_b = distance_sum(a, b)
    for wanted in itertools.product([True, False], repeat=2):
        again, *gradients = distance_sum(a, b, *wanted)
        assert abs(again - total) <= VALUE[torch.float32] * total  # added up in another order
        for gradient, full, want in zip(gradients, (to_a, to_b), wanted, strict=True):
            if want:
                torch.testing.assert_close(gradient, full)
            else:
                assert gradient is None


SHARES = (2.0, -1.0, -0.5)


@pytest.mark.parametrize("wanted", list(itertools.product([True, False], repeat=2)))
@pytest.mark.parametrize("apart", [0.0, 1.0, 1e4])
def test_three_sums_at_once_are_the_three_sums(apart, wanted):
    a, b = Cloud.of(gaussian(70, 3, 70), 16), Cloud.of(gaussian(50, 3, 50) + apart, 16)
    tiling = Tiling(block=16)
    total, *gradients = weighed_sum(a, b, SHARES, *wanted, tiling)
    (xy, to_a, to_b), (xx, own_a, _), (yy, own_b, _) = (
        distance_sum(*pair, tiling=tiling) for pair in ((a, b), (a, a), (b, b))
    )
    across, in_a, in_b = SHARES
    assert abs(total - (across * xy + in_a * xx + in_b * yy)) <= VALUE[torch.float32] * xy
    right = across * to_a + in_a * own_a, across * to_b + in_b * own_b
    for gradient, want, truth in zip(gradients, wanted, right, strict=True):
        assert (gradient is not None) == want
        if want:
            assert (gradient - truth).abs().max() <= GRADIENT[torch.float32] * 120


def test_a_second_cloud_far_from_the_first_costs_no_float64(monkeypatch):
    monkeypatch.setattr(tile, "_in_double", lambda *a: pytest.fail("a tile went to float64"))
    a, b = Cloud.of(gaussian(256, 8, 1), 64), Cloud.of(gaussian(256, 8, 2) + 1e4, 64)
    for p, q in ((a, b), (b, a)):
        total = weighed_sum(p, q, SHARES, True, True, Tiling(block=64))[0]
        right = 2 * truth(*(c.points.t() for c in (p, q)))[0]
        right -= sum(s * truth(c.points.t(), c.points.t())[0] for s, c in ((1.0, p), (0.5, q)))
        assert abs(total - right) <= VALUE[torch.float32] * right


def test_a_sample_far_away_is_cut_once_more_and_not_block_by_block(monkeypatch):
    cuts = []
    real = pairwise.cut
    monkeypatch.setattr(pairwise, "cut", lambda *a: cuts.append(a) or real(*a))
    a, b = Cloud.of(gaussian(256, 8, 1), 64), Cloud.of(gaussian(256, 8, 2) + 1e4, 64)
    weighed_sum(a, b, SHARES, True, True, Tiling(block=64))
    assert len(cuts) == 2 + 1


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=2), min_size=1, max_size=40),
    block=st.integers(1, 9),
)
def test_a_cloud_holds_every_row_once(rows, block):
    x = torch.tensor(rows, dtype=torch.float32)
    cloud = Cloud.of(x, block)
    assert torch.equal(cloud.points.t()[cloud.point_of], x)
    assert len(cloud.points.t().unique(dim=0)) == cloud.points.shape[1]
    assert torch.equal(cloud.weight, torch.bincount(cloud.point_of).float())


def test_unequal_rows_with_one_key_are_kept_apart():
    x = torch.tensor([[1e20, 1.0], [1e20, 2.0], [1e20, 1.0]])
    cloud = Cloud.of(x)
    assert torch.equal(cloud.points.t()[cloud.point_of], x)


def test_far_clusters_get_blocks_of_their_own():
    x = gaussian(64, 3, 1)
    x[torch.randperm(64, generator=torch.Generator().manual_seed(2))[:32]] += 1e3
    blocks = Cloud.of(x, 16).points.split(16, 1)
    assert all(float(b.amax(1).sub(b.amin(1)).max()) < 100 for b in blocks)
