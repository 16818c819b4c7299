"""Every failure refuses what only looks like a repair, and takes the library's answer.

A form that acts between two lines of training (on gradients, on an optimizer) returns no value
whose graph could be cut: its failure's own test file holds what only looks like a repair of it.
"""

import inspect

import pytest
from known_bad import KNOWN_BAD, broken
from torch import Tensor

from labkit import check, failures
from labkit.bench import Bench
from labkit.check.fit import answer


def takes_a_tensor(name):
    first = next(iter(inspect.signature(answer(Bench(name).failure)).parameters.values()))
    return first.annotation is Tensor


each_failure = pytest.mark.parametrize("name", failures.names())
each_of_values = pytest.mark.parametrize("name", [*filter(takes_a_tensor, failures.names())])


@each_failure
def test_the_library_answer_passes(name):
    result = check(name, answer(Bench(name).failure))
    assert result, result


@each_failure
def test_a_function_that_is_not_written_yet_is_told_so(name):
    assert str(check(name, lambda *values: ...)) == "not yet: write the function first"


@each_of_values
@pytest.mark.parametrize("bad", KNOWN_BAD, ids=lambda bad: bad.__name__)
def test_a_known_bad_answer_is_refused(name, bad):
    failure = Bench(name).failure
    result = check(name, bad(failure))
    assert not result
    unrepaired = check(name, broken(failure)).hint  # what changes nothing is told the same
    told = (unrepaired, *KNOWN_BAD[bad])
    assert any(words in result.hint for words in told), result
