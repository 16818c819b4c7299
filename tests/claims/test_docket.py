"""Every claim of the guide and of what it leaves out is run, and finds what was measured."""

import ast
import inspect
import re
import textwrap
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path

import pytest
import torch

from labkit import claims
from labkit.claims.entry import BOOK, FALSE, claim, protection, readable, truth
from labkit.claims.table import Table

GUIDE = tuple(f"G{n:02}" for n in range(1, 96))
MISSED = tuple(f"D{n:02}" for n in range(1, 28))
QUOTES = Path(__file__).with_name("quotes.txt")  # the guide's own words, copied from it


def test_every_id_has_exactly_one_claim():
    assert claims.names() == GUIDE + MISSED
    assert len({entry.run for entry in claims.all_claims()}) == len(GUIDE + MISSED)


@pytest.mark.parametrize("id", GUIDE + MISSED)
def test_it_finds_what_was_measured(id, findings):
    finding = findings[id]
    assert finding.claim == id
    assert finding.verdict == BOOK[id].expected, finding.evidence


@pytest.mark.parametrize("id", GUIDE + MISSED)
def test_it_says_what_it_is(id, findings):
    entry, evidence = BOOK[id], findings[id].evidence
    assert entry.english.endswith(".")
    assert entry.expected in claims.VERDICTS
    assert entry.run.__doc__
    assert evidence.endswith(".")
    assert "\n" not in evidence
    assert "  " not in evidence
    assert len(evidence) < 420


def test_the_quotes_are_the_guides_own_words():
    quotes = dict(line.split("\t") for line in QUOTES.read_text(encoding="utf-8").splitlines())
    assert quotes == {entry.id: entry.chinese for entry in claims.all_claims() if entry.chinese}
    assert tuple(quotes) == GUIDE


def test_what_the_guide_leaves_out_has_no_quote_and_no_place():
    for id in MISSED:
        assert BOOK[id].chinese == ""
        assert BOOK[id].where == "not in the guide"


def test_a_second_run_says_the_same_words(findings):
    again = {row.id: (row.verdict, row.evidence) for row in claims.docket()}
    assert again == {id: (f.verdict, f.evidence) for id, f in findings.items()}


def test_no_claim_draws_from_the_global_generator():
    before = torch.get_rng_state()
    for id in ("G05", "G07", "G40", "G44", "G60", "D10"):
        claims.trial(id)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_finding_reads_as_one_line(findings):
    told = str(findings["G20"])
    assert told.startswith("G20: false. Below 0 it is NaN")
    with pytest.raises(FrozenInstanceError):
        findings["G20"].verdict = "holds"


def test_a_claim_reads_as_one_line():
    told = str(claims.claim_of("G39"))
    assert (
        told
        == "G39, 2 VAE path, A to B: “logvar过大 >20” logvar > 20 overflows exp, and std = Inf."
    )
    assert (
        str(claims.claim_of("D16")) == "D16, not in the guide: A finite loss has a finite gradient."
    )


def test_a_trial_takes_what_the_claim_hinges_on():
    assert claims.trial("G39", logvar=178.0).verdict == "holds"
    with pytest.raises(TypeError, match="unexpected keyword argument 'weather'"):
        claims.trial("G39", weather="fine")


def test_an_unknown_id_is_told_the_nearest():
    with pytest.raises(ValueError, match=r"G01 to G95.*got 'g7'.*nearest is G"):
        claims.trial("g7")
    with pytest.raises(ValueError, match="nearest is G10"):
        claims.trial("G100")


def test_a_taken_id_and_a_word_of_ones_own_are_refused():
    with pytest.raises(ValueError, match="expected an id that is free"):
        claim("G01", english="Again.", verdict=FALSE)
    with pytest.raises(ValueError, match=r"claim G99: expected a verdict of .* got 'nonsense'"):
        claim("G99", english="New.", verdict="nonsense")
    assert "G99" not in BOOK


@pytest.mark.parametrize(
    ("ruling", "word"),
    [
        (truth(True), "holds"),
        (truth(True, sometimes=True), "holds"),
        (truth(False, sometimes=True), "holds with a condition"),
        (truth(False), "false"),
        (protection(stops=True, leaks=False), "holds"),
        (protection(stops=True, leaks=True), "incomplete guard"),
        (protection(stops=False, leaks=True), "false"),
        (protection(stops=False, leaks=False), "false"),
    ],
)
def test_a_verdict_follows_from_what_was_seen(ruling, word):
    assert ruling == word


def test_numbers_are_told_in_words():
    told = readable("nan, -inf, torch.nan_to_num, 1e+08, 0e+00, 3.4e+38, 2e-09, -1e+16, inference")
    assert told == "NaN, -Inf, torch.nan_to_num, 1e8, 0, 3.4e38, 2e-9, -1e16, inference"


def test_the_docket_is_plain_data_that_shows_itself(findings):
    rows = claims.docket()
    assert [row.id for row in rows] == list(claims.names())
    assert rows[19].english == "log(x) is NaN for x <= 0."
    first, *_ = repr(rows).splitlines()
    assert "| When tensors are added up" in first
    head, line, *body = rows._repr_markdown_().splitlines()
    assert head == "| id | chinese | english | verdict | evidence |"
    assert line == "| --- | --- | --- | --- | --- |"
    assert len(body) == len(rows)
    assert all(len(re.split(r"(?<!\\)\|", row)) == 7 for row in body)
    assert Table()._repr_markdown_() == ""


def test_a_table_words_its_cells():
    @dataclass
    class Pair:
        in_time: bool
        names: tuple[str, ...]

    rows = Table([Pair(True, ("a", "b")), Pair(False, ())])
    assert repr(rows) == "yes | a; b\nno | "
    assert rows._repr_markdown_().splitlines()[0] == "| in time | names |"


def returned(function) -> ast.expr:
    """The first part of what a function returns at its end: its verdict."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body
    return tree.body[-1].value.elts[0]


@pytest.mark.parametrize("entry", claims.all_claims(), ids=lambda entry: entry.id)
def test_no_verdict_is_a_constant(entry):
    verdict = returned(entry.run)
    if entry.id == "G95":  # nothing can be run
        assert isinstance(verdict, ast.Name)
        return
    assert verdict.func.id in ("truth", "protection")
    given = [*verdict.args, *(keyword.value for keyword in verdict.keywords)]
    assert not all(isinstance(value, ast.Constant) for value in given)
