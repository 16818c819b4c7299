"""What a learner does, told to whoever listens: one door for turns, checks, predictions, hints."""

from collections.abc import Callable
from typing import Any

Listener = Callable[[str, str, dict[str, Any]], None]
listeners: list[Listener] = []


def tell(what: str, failure: str, **facts: Any) -> None:
    """Tell every listener.

    Args:
        what: turned, checked, predicted, hinted or solved.
        failure: name of the failure mode.
        **facts: of this kind of news, plain values.
    """
    for listener in tuple(listeners):
        listener(what, failure, facts)
