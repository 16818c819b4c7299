"""The film strip, the words for an op, and colours that everybody can tell apart and read."""

from dataclasses import replace

import made
import pytest

from labkit.draw import draw_strip
from labkit.draw.health import count, short
from labkit.draw.scene import Words
from labkit.draw.strip import strip_scene
from labkit.draw.theme import STATES, inks
from labkit.draw.words import HINT, cell_of, describe, stats_words
from labkit.probes.verdict import Verdict

READINGS = (made.reading(), made.reading(made.broken(), shift=60.0))
AA = 4.5  # contrast of text on its ground (WCAG 2.2, 1.4.3)
GRAPHIC = 3.0  # contrast of a graphical object with the page (WCAG 2.2, 1.4.11)


def test_a_strip_tells_every_frame_in_words():
    scene = strip_scene(READINGS, "shift")
    assert scene.alt == "shift 0: healthy, 1 of 1 alive\nshift 60: nan, 1 of 3 alive, 2 harmed"
    said = [item.text for item in scene.items if isinstance(item, Words)]
    assert {"shift in nats", "0", "60", "✓ healthy", "✕ nan"} <= set(said)


def test_a_strip_of_choices_shows_the_choices():
    readings = (made.reading(guard="none"), made.reading(made.broken(), guard="clamp"))
    assert strip_scene(readings, "guard").alt.startswith("guard none: healthy")


def test_badge_and_strip_count_alike():
    fates = made.report(fates=("ok", "wrong", "none", "zero")).parameters
    excused = (*fates[:3], replace(fates[3], excused="its terms cancel"))
    report = replace(made.report(), parameters=excused)
    assert report.tally == ("2 of 4", "1 excused", "2 harmed")
    assert str(report).startswith("healthy: 2 of 4 gradients alive, 1 excused")
    items = strip_scene([made.reading(report)], "shift").items
    said = [i.text for i in items if isinstance(i, Words)]
    assert {"2 of 4 alive", "1 excused, 2 harmed"} <= set(said)


def test_a_long_strip_goes_on_in_the_next_row():
    one, many = strip_scene(READINGS[:1] * 10, "shift"), strip_scene(READINGS[:1] * 11, "shift")
    assert many.width == one.width
    assert many.height == 2 * one.height


def test_a_strip_is_a_figure_with_the_same_bytes_every_time():
    assert draw_strip(READINGS, "shift").png() == draw_strip(READINGS, "shift").png()


def test_a_strip_of_nothing_or_of_an_unknown_knob_is_an_error():
    with pytest.raises(ValueError, match="expected at least one; got none"):
        draw_strip((), "shift")
    with pytest.raises(ValueError, match="expected one of shift, guard; got 'logvar'"):
        draw_strip(READINGS, "logvar")


def test_an_op_in_words():
    assert describe(made.broken(), 3) == [
        "exp, vae.py:2, in f",
        "y = exp(x)",
        "value 4×3 float32, 0 to 2, 5 +Inf",
        "gradient 4×3 float32, 12 NaN",
    ]
    assert cell_of(made.broken(), 6) == 3
    assert cell_of(made.broken(), 99) == -1


def test_with_nothing_pointed_at_the_chain_is_told():
    assert describe(made.broken(), -1) == ["born: exp", "carried: sub … mean (2 ops)"]
    assert describe(made.report(), -1) == [HINT]


def test_a_scalar_and_zeros_in_words():
    assert stats_words(made.ZERO) == "4×3 float32, 0 to 0, 12 zero"


@pytest.mark.parametrize(
    ("x", "text"),
    [(0.0, "0"), (0.5, "0.5"), (178.24, "178"), (3.4e38, "3e38"), (1e-45, "1e-45"), (-2e5, "-2e5"),
     (float("nan"), "–"), (float("inf"), "∞"), (99.9, "100")],
)  # fmt: skip
def test_magnitudes_are_short(x, text):
    assert short(x) == text


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0"), (48960, "48960"), (1234567, "1.2M"), (10**10, "10.0G")]
)
def test_counts_are_short(n, text):
    assert count(n) == text


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_every_word_can_be_read_on_its_ground(dark):
    table = inks(dark)
    pairs = [(f"on {state}", state) for state in STATES]
    pairs += [(f"onmark {state}", f"mark {state}") for state in ("nan", "inf")]
    pairs += [(word, ground) for word in ("ink", "muted") for ground in ("paper", "tint")]
    pairs += [("ceiling word", "paper"), ("floor word", "paper")]
    low = {p: contrast(table[p[0]].fill, table[p[1]].fill) for p in pairs}
    assert {p: c for p, c in low.items() if c < AA} == {}


@pytest.mark.parametrize("dark", [False, True])
def test_every_bar_line_and_mark_stands_out_from_the_page(dark):
    table = inks(dark)
    strokes = [table[role].stroke for role in ("edge", "ceiling", "floor", "born", "axis")]
    marks = [table[f"mark {state}"].fill for state in STATES]
    assert min(contrast(c, table["paper"].fill) for c in strokes + marks) >= GRAPHIC


def test_every_verdict_and_every_fate_has_a_mark():
    fates = ("none", "zero", "vanishing", "exploding", "nan", "inf", "not updated")
    assert all(STATES[word].mark for word in [*map(str, Verdict), *fates])
