"""The picture of a failure map: every verdict with its mark, changes in their place, the ring."""

from dataclasses import dataclass, replace

import pytest

from labkit.bench import choice, dial, knobs_of
from labkit.draw import draw_map
from labkit.draw.maps import ASIDE, CELL, Grid, map_scene, other_than, spots
from labkit.draw.scene import Box, Curve, Words
from labkit.draw.svg import svg
from labkit.draw.theme import STATES
from labkit.maps import FailureMap


@dataclass(frozen=True)
class Settings:
    shift: float = dial(0.0, -10, 100, 0.5, "nats", "added")
    eps: float = dial(-8.0, -40, -2, 1, "log10", "constant")
    form: str = choice("a", ("a", "b"), "which")


def chart(y="form", **settings):
    knobs = knobs_of(Settings)
    rows = (
        ((0.0, "healthy"), (10.5, "inf"), (20.0, "nan")),
        ((0.0, "healthy"), (40.0, "dead")),
    )
    ys = ("a", "b") if y == "form" else (-40.0, -20.0)
    return FailureMap(knobs["shift"], knobs[y], (0.0, 20.0, 40.0), ys, rows, Settings(**settings))


def ring_of(scene):
    return next(item for item in scene.items if isinstance(item, Box) and item.key == "stand")


def middle(box):
    return box.x + box.width / 2, box.y + box.height / 2


def test_the_map_in_words_has_every_threshold_and_the_unit():
    assert map_scene(chart(shift=20.0)).alt.splitlines() == [
        "Map of shift and form, now at shift 20 nats, form a.",
        "form a: healthy, inf from 10.5, nan from 20",
        "form b: healthy, dead from 40",
    ]
    assert draw_map(chart()).labkit_alt == map_scene(chart()).alt


def test_every_cell_has_the_mark_and_every_verdict_its_word():
    said = [item.text for item in map_scene(chart()).items if isinstance(item, Words)]
    marks = [STATES[word].mark for word in ("healthy", "nan", "nan", "healthy", "healthy", "dead")]
    assert [text for text in said if text in marks] == marks
    for word in ("healthy", "inf", "nan", "dead"):
        assert f"{STATES[word].mark} {word}" in said
    assert {"shift in nats: added", "form: which", "0", "20", "40", "a", "b"} <= set(said)


def test_a_change_is_drawn_where_it_is():
    grid = Grid(chart())
    scene = map_scene(chart())
    lines = [i.path[0][1] for i in scene.items if isinstance(i, Curve) and i.role == "born"]
    assert lines == [grid.border(10.5), grid.border(20.0), grid.border(40.0)]
    assert lines[0] == pytest.approx(grid.x(0.0) + CELL * 10.25 / 20)
    assert lines[1] == pytest.approx(grid.x(0.0) + CELL * 19.75 / 20)
    colours = [i for i in scene.items if isinstance(i, Box) and i.role in ("healthy", "inf")]
    assert colours[0].x + colours[0].width == lines[0] == colours[1].x


def test_a_mark_makes_way_for_a_line_and_keeps_its_colour():
    scene, grid = map_scene(chart()), Grid(chart())
    marks = [i for i in scene.items if isinstance(i, Words) and i.y in (grid.y(0), grid.y(1))]
    placed = {(i.y, i.text): i.x for i in marks if i.anchor == "middle"}
    nan, dead = placed[grid.y(0), STATES["nan"].mark], placed[grid.y(1), STATES["dead"].mark]
    assert nan == grid.x(40.0), "the last of them, far from any line"
    assert dead == grid.border(40.0) + ASIDE
    assert next(i.x for i in marks if i.text == STATES["nan"].mark) == grid.border(20.0) + ASIDE


def test_a_run_without_room_has_no_mark():
    it = replace(chart(), rows=(((0.0, "healthy"), (19.5, "inf"), (20.5, "nan")),) * 2)
    said = [i.text for i in map_scene(it).items if isinstance(i, Words)]
    assert STATES["inf"].mark not in said
    assert f"{STATES['inf'].mark} inf" in said, "the legend has it"


def test_numbers_grow_upwards_and_options_are_read_downwards():
    assert Grid(chart("form")).y(0) < Grid(chart("form")).y(1)
    assert Grid(chart("eps")).y(0) > Grid(chart("eps")).y(1)


def test_the_ring_stands_where_the_bench_stands_and_never_leaves_the_map():
    grid = Grid(chart())
    assert middle(ring_of(map_scene(chart(shift=40.0, form="b")))) == (grid.x(40.0), grid.y(1))
    far = middle(ring_of(map_scene(chart(shift=100.0))))
    assert far == (grid.x(40.0), grid.y(0))
    low = middle(ring_of(map_scene(chart(shift=-10.0))))
    assert low == (grid.x(0.0), grid.y(0))
    between = middle(ring_of(map_scene(chart("eps", eps=-30.0))))[1]
    assert between == pytest.approx((Grid(chart("eps")).y(0) + Grid(chart("eps")).y(1)) / 2)


def test_the_ring_is_on_the_right_side_of_a_change():
    for shift, side in ((10.0, -1), (10.5, 1), (19.5, -1)):
        change = Grid(chart()).border(10.5 if shift < 19 else 20.0)
        assert (Grid(chart(shift=shift)).here()[0] - change) * side > 0


def test_the_page_gets_the_cells_as_the_eye_sees_them():
    found = spots(chart("eps"))
    assert [spot["row"] for spot in found] == [0, 0, 0, 1, 1, 1]
    assert found[0]["set"] == {"shift": 0.0, "eps": -20.0}  # the upper row
    assert found[4]["words"] == "shift 20 nats, eps -40 log10: nan"
    assert (found[4]["x"], found[4]["y"]) == (Grid(chart("eps")).x(20.0), Grid(chart("eps")).y(0))


def test_the_page_draws_the_ring_itself():
    still, page = svg(map_scene(chart())), svg(map_scene(chart(), here=False))
    assert "lk-stand" in still
    assert "lk-stand" not in page


def test_what_does_not_hold_for_the_map_is_named():
    assert other_than(chart(eps=-8.0), {"eps": -8.0}) == ""
    assert other_than(chart(eps=-9.0), {"eps": -8.0}) == "eps -8"
