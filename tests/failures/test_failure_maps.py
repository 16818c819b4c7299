"""Stored failure maps: whole, and a sample of each measured again."""

import importlib
from itertools import pairwise

import pytest

from labkit import failures, maps
from labkit.probes.verdict import Verdict

MODULES = {name: importlib.import_module(f"labkit.failures.{name}") for name in failures.names()}
MAPPED = {name: module for name, module in MODULES.items() if hasattr(module, "MAP")}
LEAST = 6  # failures with a map
AGAIN = "python notebooks/build.py --maps {}"


@pytest.fixture(params=MAPPED)
def failure(request):
    return MAPPED[request.param]


def test_enough_failures_have_a_map():
    assert len(MAPPED) >= LEAST


def test_a_map_is_whole(failure):
    (x, xs), (_, ys) = maps.axes(failure)
    words = set()
    for settings in maps.layers(failure):
        found = maps.stored(failure, settings)
        assert len(found.rows) == len(ys)
        for row in found.rows:
            places = [maps.place(x, value) for value, _ in row]
            assert row[0][0] == xs[0], AGAIN.format(failure.__name__)
            assert places == sorted(set(places))
            assert all(before[1] != after[1] for before, after in pairwise(row))
            words |= {word for _, word in row}
    assert words <= set(Verdict)
    assert len(words) > 1


def test_a_sample_measured_again_agrees(failure):
    assert maps.disagreements(failure) == [], AGAIN.format(failure.__name__.rpartition(".")[2])
