"""What a failure says of the guide is what the trial found: they are linked by the quote."""

import importlib

import pytest

from labkit import claims, failures
from labkit.claims.entry import BOOK

LINKED = {  # of the failures that came first; later ones are found by their words
    "accumulation": "G02",
    "dead_clamp": "G50",
    "detach": "G08",
    "distance_at_zero": "G26",
    "exploding_logvar": "G39",
    "item": "G10",
    "log_of_almost_nothing": "G53",
    "no_grad": "G06",
    "vanishing_dispersion": "G45",
}


def plain(quote: str) -> str:
    """A quote without code marks, its spaces made equal."""
    return " ".join(quote.replace("`", "").split())


def quoted(quote: str) -> set[str]:
    """The claims whose words stand in a quote, or in whose words it stands."""
    words = {entry.id: plain(entry.chinese) for entry in claims.all_claims() if entry.chinese}
    return {id for id, own in words.items() if own in plain(quote) or plain(quote) in own}


def claim_of(name: str):
    """What a failure says of the guide."""
    return importlib.import_module(f"labkit.failures.{name}").CLAIM


@pytest.mark.parametrize("name", failures.names())
def test_a_failure_and_the_trial_agree(name):
    claim = claim_of(name)
    assert claim.verdict in claims.VERDICTS
    if linked := quoted(claim.quote):
        assert claim.verdict in {BOOK[id].expected for id in linked}, linked


@pytest.mark.parametrize("name", LINKED)
def test_a_quote_leads_to_its_claim(name):
    assert LINKED[name] in quoted(claim_of(name).quote)


def test_another_verdict_would_be_seen():
    linked = quoted("`result = result + ...`  创建新张量，旧的计算图被detach")
    assert linked == {"G02"}
    assert "holds" not in {BOOK[id].expected for id in linked}
