"""Kill training at every boundary of a save and at random moments; does it resume to the same bits?

python benchmarks/crash_safety.py [--kills 100] [--seed 0]

Every trial starts from an empty folder, in a process of its own that dies by SIGKILL. A second
process continues from what it left. Its parameters, optimizer state, noise and losses must have
the bits of a run that nothing interrupted. Exit status 1 if any trial differs.
This shows what a dying process leaves, not what a power cut does to a disk.
"""

import argparse
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from labkit.cells.simulate import simulate
from labkit.models.vae import NBVAE
from labkit.training import train
from labkit.training.checkpoint import load_checkpoint, save_checkpoint

BOUNDARIES = (
    "before write",
    "after write",
    "after fsync",
    "before rename",
    "after rename",
    "after directory fsync",
)
SAVES = (1, 3)  # crash in the first save, where there is no older file, and in a later one
EVERY = 2  # steps between two saves: often, so that many random kills hit a save


def training(folder: Path) -> None:
    """The whole job: train to the end, or from the checkpoint to the end."""
    torch.set_num_threads(1)
    cells = simulate(128, n_genes=30, seed=2)[0]
    model = NBVAE.for_cells(cells.train, 4, hidden=16)
    path = folder / "run.pt"
    train.train_vae(model, cells, 6, 32, checkpoint=path, checkpoint_every=EVERY)


def die_at(boundary: str, save: int) -> Callable[[str], None]:
    """A hook that kills its own process at the n-th passing of a boundary."""
    passed = Counter()

    def hook(name: str) -> None:
        passed[name] += 1
        if name == boundary and passed[name] == save:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def half_written(path: str, state: dict, boundary: Callable[[str], None]) -> None:
    """A save that dies with half of its bytes in the file aside."""
    save_checkpoint(path, state)
    whole = Path(path).read_bytes()
    Path(f"{path}.tmp").write_bytes(whole[: len(whole) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(job: Callable[[], None], kill_after: float | None = None) -> bool:
    """Run in a forked process; True if it ended by itself, False if it was killed."""
    child = os.fork()
    if child == 0:
        try:
            job()
        except BaseException as wrong:
            print(f"child: {wrong!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)  # not yet waited for, so the number is still this child's
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("a training process failed by itself")
    return not os.WIFSIGNALED(status)


def digest(folder: Path) -> str:
    """Hash of every number in the checkpoint."""
    sha = hashlib.sha256()

    def add(tree) -> None:
        if isinstance(tree, dict | list | tuple):
            for branch in tree.items() if isinstance(tree, dict) else tree:
                add(branch)
        else:
            is_tensor = isinstance(tree, torch.Tensor)
            sha.update(tree.numpy().tobytes() if is_tensor else repr(tree).encode())

    add(load_checkpoint(folder / "run.pt"))
    return sha.hexdigest()


def trial(job: Callable[[Path], None], kill_after: float | None, expected: str) -> tuple[str, bool]:
    """Crash, look at what was left, resume; return where it died and whether the bits agree."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ended = in_child(partial(job, folder), kill_after)
        kept, aside = folder / "run.pt", folder / "run.pt.tmp"
        place = "inside a save" if aside.exists() else "between saves"
        place = "ended before the kill" if ended else place
        if kept.exists():
            load_checkpoint(kept)  # whole and verified, whatever happened
        elif not ended:
            place += ", nothing saved yet"
        in_child(partial(training, folder))
        return place, digest(folder) == expected


def patched(save: Callable) -> Callable[[Path], None]:
    """The training job with another save function."""

    def job(folder: Path) -> None:
        train.save_checkpoint = save
        training(folder)

    return job


def warm_up() -> None:
    """Load what torch loads on first use, so that no child spends its life on imports.

    No backward pass runs here: a process that has run one should not fork.
    """
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    torch.optim.Adam([weight]).step()


def main(kills: int, seed: int, boundaries: tuple[str, ...] = BOUNDARIES) -> int:
    warm_up()
    with tempfile.TemporaryDirectory() as name:
        start = time.monotonic()
        in_child(partial(training, Path(name)))
        duration, expected = time.monotonic() - start, digest(Path(name))
    print(f"{'crash':<36} same bits after resuming")
    results = []
    for boundary in boundaries:
        for save in SAVES:
            job = patched(partial(save_checkpoint, boundary=die_at(boundary, save)))
            results.append(trial(job, None, expected)[1])
            print(f"{boundary + f', save {save}':<36} {results[-1]}")
    results.append(trial(patched(partial(half_written, boundary=None)), None, expected)[1])
    print(f"{'half of the bytes written':<36} {results[-1]}")
    moments = random.Random(seed)
    landed = Counter()
    for _ in range(kills):
        landed[trial(training, moments.uniform(0, duration), expected)] += 1
    for (place, same), times in sorted(landed.items()):
        results.append(same)
        print(f"{f'kill -9, {place}: {times} times':<36} {same}")
    return 0 if all(results) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    sys.exit(main(**vars(parser.parse_args())))
