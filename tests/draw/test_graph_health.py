"""The propagation graph: what folds, what a cell says, what is outlined, what is cut."""

from dataclasses import replace

import made
import pytest
from made import FINE, INF, NAN, ZERO

from labkit.draw import layout as layouts
from labkit.draw.fold import fold
from labkit.draw.graph import graph_scene
from labkit.draw.plan import plan
from labkit.draw.scene import Box, Curve
from labkit.probes.report import Link


def live(report):
    return graph_scene(report).live()


def names(report):
    return [[cell.name for cell in row.cells] for row in fold(report).rows]


def test_a_row_is_a_line_and_parameters_fold_into_their_op():
    assert names(made.report()) == [["x", "linear"], ["exp", "sub"], ["mean"]]


def test_views_casts_and_copies_fold_into_what_they_move():
    ops = (
        made.source(0, "x", "input", gradient=None),
        made.source(1, "w"),
        made.op(2, "t", (1,)),
        made.op(3, "addmm", (0, 2)),
        made.op(4, "_to_copy", (3,), replace(FINE, dtype="float64"), inputs=(FINE,)),
        made.op(5, "view", (4,)),
        made.op(6, "exp", (5,)),
    )
    assert names(made.report(ops)) == [["x", "addmm", "exp"]]


def test_a_cast_that_loses_range_stays():
    wide = replace(FINE, dtype="float64")
    ops = (made.source(0, "w"), made.op(1, "_to_copy", (0,), FINE, inputs=(wide,)))
    assert names(made.report(ops)) == [["to_copy"]]


def test_an_autograd_function_is_one_cell():
    dark = {"node": "", "gradient": None}
    ops = (
        made.source(0, "w"),
        made.op(1, "mul", (0,)),
        made.op(2, "exp", (1,), line=20, **dark),
        made.op(3, "log", (2,), line=21, **dark),
        made.op(4, "add", (3,), line=22, node="_LogMassBackward"),
        made.op(5, "sum", (4,), line=2),
    )
    report = made.report(ops, born=2)
    assert [name for row in names(report) for name in row] == ["mul", "LogMass", "sum"]
    assert live(report)["b4"][0] == "born"


def test_the_way_back_to_a_line_makes_a_new_row():
    ops = (
        made.source(0, "w"),
        made.op(1, "a", (0,), line=1),
        made.op(2, "b", (1,), line=2, group="g"),
        made.op(3, "branch", (1,), line=3, group="h"),
        made.op(4, "c", (2, 3), line=1),
    )
    assert names(made.report(ops)) == [["a"], ["b"], ["branch"], ["c"]]


@pytest.mark.parametrize(
    ("value", "role", "name", "word"),
    [
        (FINE, "ok", "exp", "3"),
        (INF, "inf", "exp ▲", "∞"),
        (NAN, "nan", "exp ✕", "NaN"),
        (ZERO, "ok", "exp", "0"),
        (made.EMPTY, "empty", "exp", "–"),
    ],
)
def test_a_cell_says_its_value_in_colour_mark_and_word(value, role, name, word):
    cell = live(made.report(made.program((FINE, value))))
    assert cell["v3"][0] == role
    assert cell["n3"] == [f"on {role}", name]
    assert cell["m3"] == [f"on {role}", word]


@pytest.mark.parametrize(
    ("gradient", "role", "word"), [(NAN, "nan", "∇ NaN"), (ZERO, "zero", "∇ 0")]
)
def test_a_sick_gradient_takes_the_lower_half(gradient, role, word):
    cell = live(made.report(made.program((FINE, INF), (FINE, gradient))))
    assert cell["v3"][0] == "inf"
    assert cell["g3"][0] == role
    assert cell["m3"] == [f"on {role}", word]


def test_a_severed_branch_is_cut_and_what_lies_behind_it_has_no_gradient():
    ops = made.program((), (None, None), cut=True)
    detach = replace(ops[3], name="detach")  # where it cuts it is no mere copy
    ops = (*ops[:3], detach, replace(ops[4], parents=(3,)), *ops[5:])
    scene = graph_scene(made.report(ops, ("none",), "severed", born=3))
    assert scene.live()["g2"][0] == "none"
    assert [i.role for i in scene.items if isinstance(i, Curve)].count("edge cut") == 1
    assert "✂" in [getattr(i, "text", "") for i in scene.items]


def test_every_turn_of_a_blamed_line_is_drawn_as_cut():
    ops = [made.source(0, "w"), made.op(1, "loss", (0,), group="s")]
    for i in (2, 4, 6):
        gone = {"cut": True, "gradient": None, "node": "", "line": 7}
        ops.append(made.op(i, "detach", (i - 1,), **gone))
        ops.append(made.op(i + 1, "add", (i, 1), line=7))
    blamed = (Link("cut", 2, "detach"),)
    scene = graph_scene(made.report(ops, ("ok",), "wrong", born=2, chain=blamed))
    assert [i.role for i in scene.items if isinstance(i, Curve)].count("edge cut") == 3
    scene = graph_scene(made.report(ops))  # a cut that nobody blames, as in a straight-through cap
    assert [i.role for i in scene.items if isinstance(i, Curve)].count("edge cut") == 0


def test_a_detached_branch_beside_a_living_one_is_no_fault():
    ops = made.program((), (FINE, None), cut=True)
    assert live(made.report(ops))["g3"][0] == "hidden"


def test_the_culprit_is_outlined_and_nothing_else():
    outlined = [key for key, (role, _) in live(made.broken()).items() if role == "born"]
    assert outlined == ["b3"]


def test_a_culprit_of_the_backward_pass_outlines_its_forward_op():
    outlined = [k for k, (role, _) in live(made.report(born=6)).items() if role == "born"]
    assert outlined == ["b3"]


def test_a_slider_move_changes_roles_and_words_but_no_place():
    before, after = graph_scene(made.report()), graph_scene(made.broken())
    boxes = [
        [(b.x, b.y, b.width, b.key) for b in s.items if isinstance(b, Box)] for s in (before, after)
    ]
    assert boxes[0] == boxes[1]
    assert before.live().keys() == after.live().keys()
    assert before.live() != after.live()


def test_the_layout_is_made_once_for_a_topology(monkeypatch):
    asked = []
    layouts.lay_out.cache_clear()
    answer = layouts._answer
    monkeypatch.setattr(layouts, "_answer", lambda q: asked.append(q) or answer(q))
    ops = [replace(op, line=op.line + 1000) for op in made.program()]  # a topology of its own
    first = plan(made.report(ops))
    assert asked
    asked.clear()
    other = [replace(op, outputs=(NAN,)) for op in ops]
    assert plan(made.report(other)) is first
    assert asked == []


def test_edges_run_downwards():
    layout = plan(made.report()).layout
    assert all(points[0][1] < points[-1][1] for points in layout.edges)


def test_without_graphviz_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(layouts.shutil, "which", lambda name: None)
    node = layouts.Node(((77.0,),), 13.0, 28.0, 2.0)
    with pytest.raises(layouts.NoGraphviz, match=r"found neither.*pip install graphviz-pure"):
        layouts.lay_out((node,), ())


def test_a_program_that_fails_is_named_and_the_next_one_is_tried(monkeypatch, tmp_path):
    bad = tmp_path / "dot"
    bad.write_text("#!/bin/sh\necho no fonts >&2\nexit 3\n")
    bad.chmod(0o755)
    good = layouts.renderers()
    monkeypatch.setattr(layouts, "renderers", lambda: (str(bad), *good))
    node = layouts.Node(((78.0,),), 13.0, 28.0, 2.0)
    assert layouts.lay_out((node,), ()).width > 78
    monkeypatch.setattr(layouts, "renderers", lambda: (str(bad),))
    with pytest.raises(layouts.NoGraphviz, match="failed with: no fonts"):
        layouts.lay_out((replace(node, least=99.0),), ())


def test_the_turns_of_a_loop_are_rows_of_their_own():
    ops = [made.source(0, "w"), made.op(1, "start", (0,), group="s")]
    for turn in range(3):
        i = len(ops)
        ops.append(made.op(i, f"a{turn}", (i - 1,), line=2, group="f"))
        ops.append(made.op(i + 1, f"b{turn}", (i,), line=3, group="g"))
    assert [row[0] for row in names(made.report(ops))] == [
        "start",
        "a0",
        "b0",
        "a1",
        "b1",
        "a2",
        "b2",
    ]


def test_a_very_long_program_is_drawn_without_a_part_of_its_middle():
    ops = [made.source(0, "w"), *(made.op(i, f"op{i}", (i - 1,), line=i) for i in range(1, 900))]
    program = fold(made.report(ops, born=450))
    drawn = {cell.name for row in program.rows for cell in row.cells}
    assert {"op1", "op449", "op450", "op899"} <= drawn
    assert program.hidden == 899 - len(drawn) > 500
    said = [getattr(i, "text", "") for i in graph_scene(made.report(ops, born=450)).items]
    assert f"{program.hidden} ops in the middle are not drawn" in said


def test_the_graph_says_itself_in_words():
    assert graph_scene(made.broken()).alt == (
        "Propagation graph of 5 ops in 3 lines: 2 NaN, 1 Inf, 2 with a sick gradient, 0 cut edges."
    )


def straight_through(cut_at_start):
    """A severed score, then a living weight with a straight-through estimator behind it."""
    dark = {"node": "", "gradient": None, "cut": True}
    return (
        made.source(0, "net.weight", gradient=None),
        made.source(1, "layer.0.bias"),
        made.op(2, "gt", (0,), line=1, **(dark if cut_at_start else {})),
        made.op(3, "mul", (2,), gradient=None, line=2),
        made.op(4, "addmm", (1, 3), line=3, group="g"),
        made.op(5, "clamp", (4,), line=4, group="h", **dark),
        made.op(6, "add", (4, 5), line=5, group="h"),
        made.op(7, "likelihood", (6,), line=6, group="k", cut=True),
        made.op(8, "sum", (7,), line=7, group="loss"),
    )


def test_scissors_stand_at_the_first_cut_alone():
    report = made.report(straight_through(True), ("none", "ok"))
    assert [edge.op for edge in fold(report).edges if edge.cut] == [2]
    said = live(report)
    assert [said[f"m{i}"][1] for i in (2, 3)] == ["∇ none", "∇ none"], "nobody else is behind them"
    assert [said[f"m{i}"][1] for i in (4, 5, 6)] == ["3", "3", "3"], "detached on purpose"


def test_where_the_way_goes_on_the_later_cut_has_the_scissors():
    report = made.report(straight_through(False), ("none", "ok"))
    assert {edge.op for edge in fold(report).edges if edge.cut} >= {7}


def test_a_sick_gradient_leaves_the_value_where_both_have_room():
    wide = made.program((FINE, replace(FINE, large=37.0)), (FINE, INF))
    wide = (*wide[:3], replace(wide[3], name="a_wide_name"), *wide[4:])
    assert live(made.report(wide))["m3"][1] == "37 ∇ ∞"
    small = made.program((FINE, replace(FINE, large=1.2e-20)), (FINE, NAN))
    assert live(made.report(small))["m3"][1] == "∇ NaN", "no room for both"
    assert live(made.report(made.program((FINE, INF), (FINE, INF))))["m3"][1] == "∇ ∞"
