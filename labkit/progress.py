"""Progress of a long loop, in a notebook and in a terminal."""

import os
from collections.abc import Callable

from tqdm.auto import tqdm


def bar(total: int, label: str = "training") -> Callable[..., None]:
    """A callback that moves a progress bar by one each time it is called.

    The environment variable ``TQDM_DISABLE=1`` keeps it silent, as the tests do.

    Args:
        total: number of calls that make the bar full; it closes itself there.
        label: what is going on.

    Returns:
        A function that takes and ignores any arguments, so that any loop can call it.
    """
    quiet = bool(os.environ.get("TQDM_DISABLE"))  # tqdm's notebook bar does not look there itself
    shown = tqdm(total=total, desc=label, leave=False, disable=quiet)

    done = 0

    def step(*_, **__) -> None:
        nonlocal done
        done += 1
        shown.update()
        if done >= total:
            shown.close()

    return step
