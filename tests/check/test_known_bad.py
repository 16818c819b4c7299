"""Every failure refuses what only looks like a repair, and takes the library's answer."""

import pytest
from known_bad import KNOWN_BAD, broken

from labkit import check, failures
from labkit.bench import Bench
from labkit.check.fit import answer

each_failure = pytest.mark.parametrize("name", failures.names())


@each_failure
def test_the_library_answer_passes(name):
    result = check(name, answer(Bench(name).failure))
    assert result, result


@each_failure
@pytest.mark.parametrize("bad", KNOWN_BAD, ids=lambda bad: bad.__name__)
def test_a_known_bad_answer_is_refused(name, bad):
    failure = Bench(name).failure
    result = check(name, bad(failure))
    assert not result
    unrepaired = check(name, broken(failure)).hint  # what changes nothing is told the same
    told = (unrepaired, *KNOWN_BAD[bad])
    assert any(words in result.hint for words in told), result
