"""The README says how many claims hold; nobody counts them by hand."""

from collections import Counter
from pathlib import Path

from labkit import claims

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_counts_of_the_readme_are_those_of_the_trial():
    guide = Counter(c.expected for c in claims.all_claims() if c.id.startswith("G"))
    holds, condition, hole, false, unknown = (guide[word] for word in claims.VERDICTS)
    assert unknown == 1
    said = (
        f"every one of its {guide.total()} claims and {len(claims.names()) - guide.total()} "
        f"failures that it leaves out: {holds} claims hold, {condition} hold on a condition that "
        f"it does not name, {hole} guard with a hole, {false} are false, and one cannot be checked"
    )
    assert said in README.read_text(encoding="utf-8")
