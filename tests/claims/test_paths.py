"""Each arrow of the guide's two diagrams, and each that they miss, is run with one fault."""

import re
from pathlib import Path

import pytest
import torch

from labkit.claims import names
from labkit.claims.entry import VERDICTS
from labkit.claims.operator_arrows import far_apart
from labkit.claims.paths import MAP, NODES, arrow, arrows, measured
from labkit.claims.walk import put, walk
from labkit.models.guards import GUIDE, OFF

BLOCKS = Path(__file__).parents[1] / "guide" / "blocks"
BLOCK = {"vae": "2.2 paths of NaN in the VAE", "operator": "2.3 paths of NaN in the operator"}
CHANGED = {  # diagram, start, end: what the arrow hinges on
    ("vae", "A", "B"): ({"logvar": 178.0}, "holds"),
    ("vae", "B", "C"): ({"std": 1.0}, "false"),
    ("vae", "D", "E"): ({"mu": 5.0}, "false"),
    ("vae", "H", "I"): ({"r": 1.0}, "false"),
    ("vae", "K", "L"): ({"eps": 1e-8}, "false"),
    ("vae", "A far", "KL"): ({"logvar": 80.0}, "false"),
    ("vae", "KL", "trunk"): ({"logvar": 5.0}, "false"),
    ("vae", "C", "mu NaN"): ({"entries": 0}, "false"),
    ("vae", "D", "loss NaN"): ({"mu": 5.0}, "false"),
    ("vae", "r large", "wrong"): ({"r": 10.0}, "false"),
    ("vae", "clamped", "dead"): ({"logvar": 5.0}, "false"),
    ("vae", "J", "faint"): ({"mu": 1.0}, "false"),
    ("operator", "explodes", "distance"): ({"size": 1e10}, "holds"),
    ("operator", "distance", "loss"): ({"size": 1.0}, "false"),
    ("operator", "unstable", "growth"): ({"norm": 1.0}, "false"),
    ("operator", "growth", "explodes"): ({"norm": 1.0}, "false"),
    ("operator", "self", "NaN gradients"): ({"distance": far_apart}, "false"),
    ("operator", "contraction", "vanishing"): ({"norm": 1.0}, "false"),
    ("operator", "far", "cancelled"): ({"offset": 0.0}, "false"),
}


def key(entry) -> tuple[str, str, str]:
    """What tells one arrow from all others."""
    return entry.diagram, entry.start, entry.end


@pytest.fixture(scope="module")
def steps():
    """What each arrow found."""
    return {key(entry): entry.run() for entry in arrows()}


@pytest.mark.parametrize("entry", arrows(), ids=str)
def test_it_finds_what_was_measured(entry, steps):
    step = steps[key(entry)]
    assert step.verdict == entry.expected, step.evidence
    assert step.evidence.endswith(".")


def test_a_second_journey_says_the_same_words(steps):
    rows = measured()
    assert [(row.verdict, row.evidence) for row in rows] == [
        (s.verdict, s.evidence) for s in steps.values()
    ]
    assert rows[0].arrow == "logvar too large, > 20 -> exp overflows: std = Inf"


@pytest.mark.parametrize("changed", CHANGED, ids=str)
def test_without_its_fault_the_verdict_is_another(changed):
    entry = next(entry for entry in MAP if key(entry) == changed)
    arguments, verdict = CHANGED[changed]
    assert verdict != entry.expected
    assert entry.run(**arguments).verdict == verdict


def test_every_arrow_of_the_guides_diagram_is_there():
    text = (BLOCKS / f"{BLOCK['vae']}.txt").read_text(encoding="utf-8")
    drawn = re.findall(r"(\w)(?:\[[^\]]*\])? --> (\w)", text)
    assert len(drawn) == 10
    assert {(a.start, a.end) for a in arrows("vae") if a.by_guide} == set(drawn)
    assert len([a for a in arrows("operator") if a.by_guide]) == 5


@pytest.mark.parametrize("diagram", NODES)
def test_the_words_of_a_node_are_the_guides(diagram):
    text = (BLOCKS / f"{BLOCK[diagram]}.txt").read_text(encoding="utf-8")
    plain = " ".join(text.split())
    for node in NODES[diagram].values():
        for words in node.chinese.split(" → "):
            assert words in plain


def test_an_arrow_stands_between_nodes_and_names_claims():
    assert len({key(entry) for entry in MAP}) == len(MAP)
    for entry in MAP:
        assert {entry.start, entry.end} <= NODES[entry.diagram].keys()
        assert set(entry.claims) <= set(names())
        assert entry.expected in VERDICTS
    used = {(e.diagram, node) for e in MAP for node in (e.start, e.end)}
    assert used == {(diagram, node) for diagram in NODES for node in NODES[diagram]}


def test_what_is_not_there_is_said():
    with pytest.raises(ValueError, match="expected one of vae, operator; got 'gan'"):
        arrows("gan")
    with pytest.raises(ValueError, match="vae: expected a node of .* got 'Z'"):  # noqa: RUF043
        arrow("vae", "A", "Z", verdict="holds", claims=())


def test_a_fault_is_the_value_itself_and_lets_the_gradient_pass():
    t = torch.tensor([[3.0, 4.0]], requires_grad=True)
    faulty = put(1e-8, 1)(t)
    assert faulty.tolist() == [[torch.tensor(1e-8).item(), 4.0]]
    assert torch.autograd.grad(faulty.sum(), t)[0].tolist() == [[1.0, 1.0]]


def test_a_walk_without_a_fault_is_healthy():
    for guards in (OFF, GUIDE):
        step = walk(guards=guards)
        assert step.bad == []
        assert len(step.gradients) == 12
        assert all(bool(t.isfinite().all()) for t in step.at.values())
