"""Gradient histograms: one row a parameter, worst first, and no special value without its bin."""

from dataclasses import replace

import made
import pytest

from labkit.draw.gradients import COLUMNS, MOST, fates_of, gradients_scene
from labkit.draw.scene import Box, Words, width_of
from labkit.draw.theme import STATES
from labkit.probes.stats import DECADES


def words(fates, **rest):
    return [
        i for i in gradients_scene(made.report(fates=fates, **rest)).items if isinstance(i, Words)
    ]


def texts(fates):
    return [item.text for item in words(fates)]


def test_worst_first_and_the_rest_in_the_models_order():
    report = made.report(fates=("ok", "zero", "ok", "nan", "none", "inf"))
    assert [fate.word for fate in fates_of(report)] == ["nan", "inf", "none", "zero", "ok", "ok"]
    assert [fate.name for fate in fates_of(report)][-2:] == ["net.weight", "layer.1.bias"]


def test_an_excused_fate_is_no_fault_and_comes_last():
    report = made.report(fates=("zero", "ok"))
    first = replace(report.parameters[0], excused="a bias before BatchNorm")
    report = replace(report, parameters=(first, report.parameters[1]))
    assert [fate.word for fate in fates_of(report)] == ["ok", "zero"]
    said = [i.text for i in gradients_scene(report).items if isinstance(i, Words)]
    assert any("excused: a bias before" in text for text in said)


@pytest.mark.parametrize("decade", [5, 30, 46, 70])
def test_an_excuse_stands_beside_its_bars(decade):
    report = made.report(fates=("vanishing",))
    counts = [12 if i == decade else 0 for i in range(len(DECADES))]
    odd = replace(report.parameters[0].gradient, decades=tuple(counts))
    fate = replace(report.parameters[0], excused="its terms cancel by design", gradient=odd)
    items = gradients_scene(replace(report, parameters=(fate,))).items
    words = next(i for i in items if isinstance(i, Words) and i.text.startswith("excused"))
    bar = next(i for i in items if isinstance(i, Box) and i.role == "mark ok")
    end = words.x + width_of(words.text, words.size)
    assert end <= bar.x or words.x >= bar.x + bar.width


def test_every_special_bin_is_there_also_when_it_is_empty():
    assert [text for text in texts(("ok",)) if text.replace("−", "-") in COLUMNS] == [
        *("NaN", "+Inf", "−Inf", "zero", "subnormal")
    ]
    assert texts(("ok",)).count("·") == 5
    assert texts(("nan",)).count("·") == 4
    assert "12" in texts(("nan",))


@pytest.mark.parametrize("word", ["nan", "inf", "zero", "none"])
def test_a_sick_parameter_has_a_mark_and_its_count(word):
    assert STATES[word].mark in texts((word,))
    scene = gradients_scene(made.report(fates=(word,)))
    faults = [i for i in scene.items if isinstance(i, Box) and i.role in ("nan", "inf", "zero")]
    assert len(faults) == (word != "none")


def test_no_gradient_is_said_in_words():
    assert "no gradient" in texts(("none",))


def test_some_zeros_are_counted_but_are_no_fault():
    report = made.report(fates=("ok",))
    some = replace(report.parameters[0].gradient, zero=5, size=17)
    report = replace(report, parameters=(replace(report.parameters[0], gradient=some),))
    scene = gradients_scene(report)
    assert "5" in [i.text for i in scene.items if isinstance(i, Words)]
    assert not [i for i in scene.items if isinstance(i, Box) and i.role == "zero"]


def test_many_parameters_are_cut_off_in_words():
    assert f"and {40 - MOST + 1} more parameters, all well" in texts(("nan", *["ok"] * 39))
    assert "and 27 more parameters, 27 of them sick" in texts(("nan",) * 40)
    assert not any("more parameters" in text for text in texts(("ok",) * MOST))


def test_a_long_name_keeps_its_end():
    report = made.report(fates=("ok",))
    name = "a.very.long.path.of.modules.inside.modules.encoder.fc_logvar.weight"
    report = replace(report, parameters=(replace(report.parameters[0], name=name),))
    (shown,) = [i.text for i in gradients_scene(report).items if "…" in getattr(i, "text", "")]
    assert shown.endswith("fc_logvar.weight")
