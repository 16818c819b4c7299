"""The lock file: exact pins in two sections, one for the lab and one for its tests."""

from dataclasses import dataclass

from bootstrap import ROOT

LOCK = ROOT / "requirements.lock"
TESTS_START = "# --- for the tests and for building the notebooks ---"
HEADER = """\
# Every package at the version that is tested here, for Python 3.11.
# Rebuilt by one command: make lock
# torch stands without its build, so that every platform finds its own.
"""


@dataclass(frozen=True)
class Lock:
    """Pins such as `numpy==2.4.6`.

    Args:
        lab: What the lab itself needs, torch first.
        tests: What the tests and the building of notebooks need besides.
    """

    lab: tuple[str, ...]
    tests: tuple[str, ...]

    @property
    def torch(self) -> str:
        """The pin of torch, which is installed alone and first."""
        return next(pin for pin in self.lab if pin.startswith("torch=="))

    def pins(self, level: str) -> tuple[str, ...]:
        """The pins of a level: `lab`, or `tests`, which holds the lab as well."""
        return self.lab if level == "lab" else self.lab + self.tests


def parse(text: str) -> Lock:
    """Read the text of a lock file."""
    lab, _, tests = text.partition(TESTS_START)
    return Lock(_pins(lab), _pins(tests))


def render(lock: Lock) -> str:
    """Write the text of a lock file; `parse` reads it back."""
    lines = [*lock.lab, "", TESTS_START, *lock.tests]
    return HEADER + "\n" + "\n".join(lines) + "\n"


def read() -> Lock:
    """Read the lock of this tree."""
    return parse(LOCK.read_text(encoding="utf-8"))


def _pins(text: str) -> tuple[str, ...]:
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))
