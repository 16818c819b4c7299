"""Progress of a long loop, in a notebook and in a terminal."""

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
    shown = tqdm(total=total, desc=label, leave=False)

    def step(*_, **__) -> None:
        shown.update()
        if shown.n >= total:
            shown.close()

    return step
