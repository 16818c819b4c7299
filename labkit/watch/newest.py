"""Of two watches on one training the newer one goes on.

A notebook's cell that ended by an error or an interrupt leaves its watch open. Run again, it
would hook the same optimizer twice, and the old watch would stop the new one's steps.
"""

import weakref

_open: weakref.WeakSet = weakref.WeakSet()


def replaces(watched) -> None:
    """Close every older watch that has a model or an optimizer in common with this one.

    Args:
        watched: a `Watch`, just made.
    """
    mine = _held(watched)
    for older in tuple(_open):
        if mine & _held(older):
            older.drop()
            _open.discard(older)
    _open.add(watched)


def _held(watched) -> set[int]:
    holdings = watched.course.holdings
    return {id(thing) for thing in (*holdings.models, *holdings.optimizers)}
