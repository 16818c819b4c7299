"""The panel of every failure mode: break it with the mouse, repair it with the button."""

import pytest
from hand import FAILURES, Hand


@pytest.mark.parametrize("name", FAILURES)
def test_break_and_repair(every, name):
    hand = Hand(every, FAILURES.index(name))
    hand.press("break")
    broken = hand.controls()
    hand.unwell()
    hand.shot(f"failure_{name}")
    hand.press("healthy")
    hand.sees("healthy")
    hand.move_to(broken)
    hand.unwell()
    hand.press("repair")
    hand.sees("healthy")
    assert every.errors == []
