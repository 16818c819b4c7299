"""Every picture, whatever the numbers: places finite, SVG well-formed, both painters draw it."""

import math
from dataclasses import replace
from xml.etree import ElementTree

import made
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.draw import draw_gradients, draw_graph, draw_picture, draw_timeline
from labkit.draw.gradients import gradients_scene
from labkit.draw.graph import graph_scene
from labkit.draw.paint import paint
from labkit.draw.scene import Curve
from labkit.draw.svg import svg
from labkit.draw.theme import inks
from labkit.draw.timeline import timeline_scene

SCENES = (graph_scene, timeline_scene, gradients_scene)
WORDS = ("ok", "none", "zero", "vanishing", "exploding", "nan", "inf", "not updated")
MARGIN = 12  # px that an outline or a letter may stand out of its picture

extreme = st.sampled_from(made.EXTREMES)
magnitude = st.floats(min_value=5e-324, max_value=1.7e308)


@st.composite
def stats(draw):
    """Any statistics that a tensor can have."""
    small, large = sorted((draw(magnitude), draw(magnitude)))
    dtype = draw(st.sampled_from(["float16", "bfloat16", "float32", "float64"]))
    size = {"shape": (3,), "dtype": dtype, "size": 3}
    return draw(st.sampled_from([replace(made.FINE, small=small, large=large, **size)]) | extreme)


@st.composite
def reports(draw):
    """A program with any values, gradients and fates."""
    values = draw(st.lists(stats(), min_size=4, max_size=4))
    gradients = draw(st.lists(st.none() | stats(), min_size=4, max_size=4))
    fates = draw(st.lists(st.sampled_from(WORDS), max_size=20))
    ops = made.program(values, gradients, cut=draw(st.booleans()))
    return made.report(ops, fates, born=draw(st.none() | st.integers(0, 6)))


def numbers(scene):
    for item in scene.items:
        if isinstance(item, Curve):
            yield from (n for _, *steps in item.path for n in steps)
        else:
            yield from (item.x, item.y, getattr(item, "width", 0), getattr(item, "height", 0))


@pytest.mark.parametrize("scene_of", SCENES)
@given(report=reports())
@settings(max_examples=150, deadline=None)
def test_no_number_can_break_a_picture(scene_of, report):
    scene = scene_of(report)
    assert all(math.isfinite(n) for n in numbers(scene))
    assert all(-MARGIN <= n <= max(scene.width, scene.height) + MARGIN for n in numbers(scene))
    assert {item.role for item in scene.items} <= inks().keys()
    ElementTree.fromstring(f"<svg>{svg(scene)}</svg>")
    assert scene.alt


@pytest.mark.parametrize("value", made.EXTREMES, ids=lambda s: f"{s.word}-{s.dtype}")
@pytest.mark.parametrize("draw", [draw_graph, draw_timeline, draw_gradients])
def test_matplotlib_draws_extremes_without_a_warning(draw, value):
    figure = draw(made.report(made.program([value] * 4, [value] * 4), WORDS))
    figure.canvas.draw()
    assert figure.labkit_alt


@pytest.mark.parametrize("scene_of", SCENES)
def test_an_empty_trace_is_a_picture_too(scene_of):
    empty = made.report(ops=(), fates=())
    paint(scene_of(empty)).canvas.draw()


def test_the_same_reading_gives_the_same_bytes():
    reading = made.reading(made.broken())
    first, second = draw_picture(reading).png(), draw_picture(reading).png()
    assert first == second
    assert first.startswith(b"\x89PNG")


def test_a_picture_shows_itself_in_a_notebook_with_its_words():
    figure = draw_picture(made.reading(made.broken()))
    data, metadata = figure._repr_mimebundle_()
    assert data["image/png"] == figure.png()
    assert data["text/plain"].startswith("nan: exp, vae.py:2")
    width, height = figure.get_size_inches() * 100
    assert metadata["image/png"] == {"width": round(width), "height": round(height)}


def test_what_the_page_and_matplotlib_draw_is_one_scene():
    scene = graph_scene(made.broken())
    words = [item.text for item in scene.items if getattr(item, "text", "")]
    page = ElementTree.fromstring(f"<svg>{svg(scene)}</svg>")
    painted = [text.get_text() for text in paint(scene).axes[0].texts]
    assert painted == words
    assert [node.text for node in page.iter("text") if node.text] == words


def test_names_from_the_users_program_cannot_break_the_page():
    ops = [made.op(0, "a<b", (), group="<lambda> & co")]
    page = ElementTree.fromstring(f"<svg>{svg(graph_scene(made.report(ops)))}</svg>")
    assert {"a<b", "<lambda> & co"} <= {node.text for node in page.iter("text")}
