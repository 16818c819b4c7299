"""The timeline: bars between floor and ceiling, lanes for what is no number, birth and headroom."""

import math
from dataclasses import replace
from itertools import pairwise

import made
import pytest
from made import FINE, INF, NAN, ZERO

from labkit.draw.bars import LIMITS, MOST, bars_of
from labkit.draw.scale import BASE, DEPTH, LANE, THIN, Scale
from labkit.draw.scene import Box, Words, width_of
from labkit.draw.timeline import timeline_scene


def scene(report):
    return timeline_scene(report)


def words(report):
    return [item.text for item in scene(report).items if isinstance(item, Words)]


def boxes(report, role):
    return [item for item in scene(report).items if isinstance(item, Box) and item.role == role]


def sized(large, dtype="float32", small=None):
    small = large if small is None else small
    return replace(FINE, dtype=dtype, small=small, large=large)


def test_phases_run_from_left_to_right_with_their_names():
    bars = bars_of(made.report())
    lefts = Scale(bars).lefts
    assert [bar.phase for bar in bars] == ["forward"] * 4 + ["backward"]
    assert lefts == sorted(lefts)
    assert {"forward", "backward, 1 op"} <= set(words(made.report()))  # as far as there is room


def test_a_second_step_goes_on_to_the_right():
    first = made.program()
    second = [replace(op, step=1, index=op.index + 7) for op in first]
    lefts = Scale(bars_of(made.report((*first, *second)))).lefts
    assert lefts == sorted(lefts)


def test_a_constant_is_a_bar_that_can_be_seen():
    bar = next(b for b in boxes(made.report(made.program([sized(7.0)])), "mark ok") if b.op == 2)
    assert bar.height == pytest.approx(THIN)


def test_larger_is_higher_and_the_ceiling_is_the_dtypes():
    scale = Scale(bars_of(made.report()))
    assert scale.y(0) > scale.y(10) > scale.y(38)
    assert scale.y(LIMITS["float32"][2]) == LANE + DEPTH
    assert scale.y(400) == LANE + DEPTH
    assert scale.y(-400) == BASE - DEPTH


def test_nan_and_inf_stand_above_the_ceiling_with_their_words():
    report = made.report(made.program((FINE, INF, NAN, NAN)))
    (inf, *_), (nan, *_) = boxes(report, "mark inf"), boxes(report, "mark nan")
    assert inf.y == nan.y == LANE
    assert nan.width > inf.width  # a run of two
    assert "NaN" in words(report) or "✕" in words(report)


def test_a_tensor_of_zeros_stands_at_the_floor():
    (zero,) = boxes(made.report(made.program((FINE, FINE, ZERO))), "mark zero")
    assert BASE - DEPTH <= zero.y < BASE


def test_the_birth_has_a_line_and_a_word():
    assert "born: exp" in words(made.broken())
    assert any(item.role == "born line" for item in scene(made.broken()).items)
    assert not any(text.startswith("born") for text in words(made.report()))


def test_headroom_counts_the_powers_of_two_that_the_tightest_op_has_left():
    report = made.report(made.program((sized(2.0), sized(2.0**100), sized(1.0))))
    assert "headroom: 28 powers of two" in words(report)
    (shade,) = boxes(report, "room")
    assert shade.y == LANE + DEPTH


def test_headroom_is_the_ops_own_dtypes():
    report = made.report(made.program((sized(2.0), sized(2.0**14, "float16"), sized(2.0**60))))
    assert "headroom: 2 powers of two" in words(report)


def test_there_is_no_headroom_to_tell_where_something_has_overflowed():
    assert boxes(made.broken(), "room") == []


@pytest.mark.parametrize(
    ("dtypes", "shown"),
    [
        (("float32",) * 4, ["float32"]),
        (("float64",) * 4, ["float64"]),
        (("float16",) * 4, ["float16"]),
        (("float16", "float32", "float32", "float32"), ["float16", "float32"]),
        (("float32", "float32", "float32", "float64"), ["float32"]),
        (("bfloat16",) * 4, ["bfloat16"]),
        (("int64",) * 4, ["float32"]),
    ],
)
def test_the_limits_of_the_dtypes_in_use_are_drawn(dtypes, shown):
    ops = [
        made.op(i, "exp", (), sized(1.0, dtype), phase="forward") for i, dtype in enumerate(dtypes)
    ]
    said = [text.split()[1] for text in words(made.report(ops)) if text.startswith("largest")]
    assert said == shown


def test_a_long_trace_is_drawn_in_buckets_and_keeps_its_nan_and_its_birth():
    ops = [made.op(i, "mul", (), FINE) for i in range(3 * MOST + 5)]
    ops[702] = replace(ops[702], outputs=(NAN,))  # in the middle of a bucket
    report = made.report(ops, born=702)
    bars = bars_of(report)
    assert len(bars) <= MOST
    assert [bar.word for bar in bars].count("nan") == 1
    assert any(text.startswith("born") for text in words(report))


def test_limits_are_those_of_torch():
    import torch

    for name, (least, floor, ceiling) in LIMITS.items():
        limits = torch.finfo(getattr(torch, name))
        assert ceiling == pytest.approx(math.log10(limits.max), abs=0.01)
        assert floor == pytest.approx(math.log10(limits.tiny), abs=0.01)
        assert least == pytest.approx(math.log10(limits.tiny) + math.log10(limits.eps), abs=0.01)


def test_no_two_names_below_the_bars_overlap():
    ops = [made.op(0, "exp", (), group="elbo_loss", line=1)]
    for i in range(1, 40):
        turned = {"phase": "backward", "forward": 0} if i >= 20 else {}
        group = "elbo_loss" if i in (17, 18, 19, 20, 21, 22) else f"group_{i // 9}"
        ops.append(made.op(i, "exp", (), group=group, **turned))
    items = timeline_scene(made.report(tuple(ops))).items
    names = [i for i in items if isinstance(i, Words) and i.y > BASE + 5]
    assert sum(name.text == "elbo_loss" for name in names) >= 2
    for y in {name.y for name in names}:
        row = sorted((n.x, n.x + width_of(n.text, n.size)) for n in names if n.y == y)
        assert all(end <= start for (_, end), (start, _) in pairwise(row))
