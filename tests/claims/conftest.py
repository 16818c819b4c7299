"""Every claim is run once for all tests of this folder, and a second time for one of them."""

import pytest

from labkit import claims


@pytest.fixture(scope="session")
def findings() -> dict[str, claims.Finding]:
    """What each claim found, by its id."""
    return {claim.id: claim.run() for claim in claims.all_claims()}
