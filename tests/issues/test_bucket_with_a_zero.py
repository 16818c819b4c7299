"""A long trace is drawn in buckets; one that held an op whose output is all zero had no log."""

import torch

from labkit import trace
from labkit.draw.bars import MOST, bars_of
from labkit.draw.timeline import timeline_scene


def test_a_zero_in_a_bucket_does_not_hide_the_others():
    weight = torch.nn.Parameter(torch.ones(3))

    def step():
        total = weight * 0
        for _ in range(MOST):
            total = total + weight
        return total.sum()

    report = trace(step)
    bars = bars_of(report)
    assert bars[0].last > bars[0].op, "a bucket"
    assert 0 < bars[0].small <= bars[0].large
    assert timeline_scene(report).items
