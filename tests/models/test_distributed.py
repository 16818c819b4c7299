"""Ranks that share the rows find what one process finds: real processes, gloo over files."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from labkit.models.energy import energy_distance
from labkit.training.distributed import sharded_energy_distance

# one value from sums in another order: roundings of the mean distance and of the cross gradient
VALUE, GRADIENT = 1e-6, 1e-5
RESULT = "rank {1} of {0}.pt"


def samples() -> tuple[Tensor, Tensor]:
    """Two samples with shared rows, duplicates and a far cluster."""
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(90, 4, generator=g), torch.randn(70, 4, generator=g) + 0.5
    return torch.cat([x, x[:5]]), torch.cat([y, x[:9], y[:9] + 1e4])


# rows of each rank: uneven, and one with none
SHARES = {2: ([60, 35], [20, 68]), 3: ([40, 0, 55], [30, 58, 0])}
WAIT = timedelta(seconds=60)  # then a rank that hangs is an error


def work(rank: int, folder: str) -> None:
    """One of three ranks: alone with the first two, then all together."""
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    dist.init_process_group("gloo", meet, rank=rank, world_size=3, timeout=WAIT)
    pair = dist.new_group([0, 1])
    for world, group in {2: pair, 3: None}.items():
        if rank < world:
            torch.save(found(rank, world, group), Path(folder) / RESULT.format(world, rank))
    dist.destroy_process_group()


def found(rank: int, world: int, group) -> dict:
    """The distance of its rows, moved by a shared shift, and what bad rows do."""
    results: dict = {}
    for biased in (False, True):
        x, y = (s.split(n)[rank] for s, n in zip(samples(), SHARES[world], strict=True))
        x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
        shift = torch.zeros(4, requires_grad=True)
        value = sharded_energy_distance(x + shift, y, biased=biased, group=group)
        value.backward()
        results[biased] = value.detach(), x.grad, y.grad, shift.grad
    with torch.no_grad():
        results["no grad"] = sharded_energy_distance(x, y, group=group)
    z, dtypes = x.detach(), (torch.float32, torch.float64)
    bad = {"axes": z[:, : 4 - rank], "dtype": z.to(dtypes[rank % 2]), "rows": z[:0]}
    for name, rows in bad.items():
        try:
            sharded_energy_distance(rows, y.detach(), group=group)
        except (ValueError, TypeError) as error:
            results[name] = f"{type(error).__name__}: {error}"
    value = sharded_energy_distance(x, y, group=group)
    (gradient,) = torch.autograd.grad(value, y, create_graph=True)
    try:
        gradient.square().sum().backward()
    except NotImplementedError as error:
        results["second"] = str(error)
    return results


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the ranks left what they found."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, (str(folder),), nprocs=3)
    return folder


@pytest.fixture(params=[2, 3], ids=["two ranks", "three ranks"])
def ranks(request, folder) -> list[dict]:
    """What each rank found."""
    return [torch.load(folder / RESULT.format(request.param, r)) for r in range(request.param)]


@pytest.mark.parametrize("biased", [False, True])
def test_ranks_find_the_value_and_the_gradients_of_one_process(ranks, biased):
    x, y = (s.clone().requires_grad_() for s in samples())
    shift = torch.zeros(4, requires_grad=True)
    value = energy_distance(x + shift, y, biased=biased)
    value.backward()
    bound = VALUE * float(torch.cdist(x, y).mean().detach())
    values, *parts = zip(*(results[biased] for results in ranks), strict=True)
    assert all(abs(v - value) <= bound for v in values)
    assert len({float(v) for v in values}) == 1
    of_x, of_y = (torch.cat(list(part)) for part in parts[:2])
    torch.testing.assert_close(of_x, x.grad, rtol=0, atol=GRADIENT * 2 / len(x))
    torch.testing.assert_close(of_y, y.grad, rtol=0, atol=GRADIENT * 2 / len(y))
    torch.testing.assert_close(sum(parts[2]), shift.grad, rtol=0, atol=GRADIENT)


def test_without_gradients_the_value_is_the_same(ranks):
    assert all(results["no grad"] == results[False][0] for results in ranks)


def test_all_ranks_see_what_is_wrong_on_one(ranks):
    for results in ranks:
        assert "ValueError: expected as many axes on all ranks" in results["axes"]
        assert "TypeError: expected one dtype on all ranks" in results["dtype"]
        assert "ValueError: expected at least 2 rows, got 0" in results["rows"]


def test_a_second_derivative_is_an_error(ranks):
    assert all("first derivative only" in results["second"] for results in ranks)


def test_a_process_without_ranks_is_told_what_to_do():
    with pytest.raises(RuntimeError, match="init_process_group first"):
        sharded_energy_distance(*samples())
