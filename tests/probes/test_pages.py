"""Pages that a traced step gives back need not be asked for again."""

import platform
import subprocess
import sys

import pytest

resource = pytest.importorskip("resource")

ROUNDS = """
import resource, sys, torch
from labkit.probes.pages import keep_pages

def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    parts = [torch.ones(3 << 18) for _ in range(6)]  # 3 MB each
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "kept":
    keep_pages()
print(min(step() for _ in range(6)))
"""
MEMORY = 6 * (3 << 20)


def _faults(way: str) -> int:
    run = subprocess.run([sys.executable, "-c", ROUNDS, way], capture_output=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what glibc does with its heap")
def test_a_step_asks_for_its_pages_once():
    pages = MEMORY // resource.getpagesize()
    # Now and then something lies above the freed memory by chance, and nothing is given back.
    if not any(_faults("as it is") > pages / 2 for _ in range(5)):
        pytest.skip("this machine has huge pages, or keeps them by itself")
    assert _faults("kept") < pages / 100
