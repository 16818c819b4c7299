"""A diagram of causes: every arrow says its verdict in a mark and a word, and is drawn."""

import pytest

from labkit.draw.arrows import LOOKS, Drawn, arrows_scene
from labkit.draw.scene import Box, Curve, Words
from labkit.draw.theme import inks

BOXES = {"a": "logvar too large", "b": "std = Inf", "c": "KL = Inf, by an exponent without a half"}
ARROWS = [Drawn("a", "b", "false"), Drawn("a", "c", "holds", told=False)]


def words(scene):
    return [item.text for item in scene.items if isinstance(item, Words)]


def test_every_box_and_every_verdict_is_written_down():
    said = words(arrows_scene(BOXES, ARROWS))
    assert {"logvar too large", "std = Inf", "✕ false", "✓ holds, and not told"} <= set(said)
    assert "KL = Inf, by an exponent" in said, "long words are broken into lines"


def test_arrows_that_were_not_told_are_thick():
    curves = [item for item in arrows_scene(BOXES, ARROWS).items if isinstance(item, Curve)]
    thick = inks()["born"].width > inks()["edge"].width
    roles = [curve.role for curve in curves]
    assert thick
    assert (roles.count("edge"), roles.count("born")) == (3, 3), "two halves and a tip each"


def test_a_box_without_an_arrow_is_left_out():
    assert "alone" not in words(arrows_scene({**BOXES, "d": "alone"}, ARROWS))


def test_an_end_that_is_no_box_is_an_error():
    with pytest.raises(ValueError, match="nowhere"):
        arrows_scene(BOXES, [Drawn("a", "nowhere", "holds")])


def test_everything_stands_on_the_paper():
    scene = arrows_scene(BOXES, ARROWS)
    for item in scene.items:
        if isinstance(item, Box):
            assert item.x >= 0
            assert item.x + item.width <= scene.width
            assert item.y + item.height <= scene.height


def test_words_replace_the_picture():
    alt = arrows_scene(BOXES, ARROWS).alt
    assert "logvar too large leads to std = Inf: false" in alt
    assert "by an exponent without a half: holds, not told" in alt


def test_no_two_verdicts_look_alike():
    assert len(set(LOOKS.values())) == len({mark for _, mark in LOOKS.values()}) == len(LOOKS)
