"""The guide on trial: every claim is a function that runs it here and says what it found.

    from labkit import claims
    print(claims.claim_of("G39"))       # the guide's words, our translation, where it stands
    print(claims.trial("G39"))          # runs it now: id, verdict, evidence
    claims.trial("G39", logvar=178)     # the same under another condition
    claims.docket()                     # runs all of them: one row each

`claims.paths` runs the guide's two diagrams of how NaN spreads, arrow by arrow, and
`claims.protection` what each of its protection points stops and lets through.

To add a claim, write one function into the file of its subject (or a new file of this folder):

    @claim("G13", chinese="...", english="...", where="1.5 tool 1", verdict="incomplete guard")
    def a_small_largest_entry_marks_a_vanishing_gradient(small: float = 1e-8) -> Ruling:
        told = ...                      # run what the claim says
        return protection(stops=..., leaks=...), "One sentence with few rounded numbers."

- `verdict` is what you measured. The function computes its own from what it ran; a test compares.
- What the claim hinges on (a dtype, a threshold) is an argument: a test changes it and sees the
  verdict flip.
- The evidence is one sentence, the same to the bit in every run on one machine.
- A quote is added to tests/claims/quotes.txt as well: it is the guide's own words, unchanged.
"""

import importlib
import pkgutil
from dataclasses import dataclass
from difflib import get_close_matches

from labkit.claims.entry import BOOK, VERDICTS, Claim, Finding
from labkit.claims.table import Table

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "VERDICTS",
    "Claim",
    "Finding",
    "Row",
    "all_claims",
    "claim_of",
    "docket",
    "names",
    "trial",
]


@dataclass(frozen=True)
class Row:
    """One line of the docket: what was claimed, and what its run found just now."""

    id: str
    chinese: str  # the guide's own words; none where it is silent
    english: str
    verdict: str
    evidence: str


def names() -> tuple[str, ...]:
    """The ids: G01 to G95, what the guide says; then D01 to D27, what it leaves out."""
    return tuple(sorted(BOOK, key=lambda id: (id[0] != "G", id)))


def all_claims() -> tuple[Claim, ...]:
    """Every claim, in the order of `names`."""
    return tuple(BOOK[id] for id in names())


def claim_of(id: str) -> Claim:
    """What was claimed: the guide's words, our translation, where it stands.

    Raises:
        ValueError: there is no such id; names the nearest.
    """
    if id not in BOOK:
        near = get_close_matches(str(id).upper(), names(), 1, cutoff=0.0)
        raise ValueError(
            f"claim: expected an id such as G01 to G95 or D01 to D27; got {id!r}. "
            f"The nearest is {near[0]}."
        )
    return BOOK[id]


def trial(id: str, **changed) -> Finding:
    """Run one claim, here and now.

    Args:
        id: such as G39.
        **changed: what the claim hinges on, as its function names it: `trial("G39", logvar=178)`.

    Raises:
        ValueError: there is no such id; names the nearest.
    """
    return claim_of(id).run(**changed)


def docket() -> Table:
    """Run all claims; one `Row` each, in the order of `names`."""
    return Table(
        Row(claim.id, claim.chinese, claim.english, finding.verdict, finding.evidence)
        for claim in all_claims()
        for finding in (claim.run(),)
    )
