"""``labkit replay FILE``: run the step of a capsule again and print what the tracer says."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from labkit.watch.capsule import Capsule, load, versions
from labkit.watch.inquiry import Finding
from labkit.watch.inquiry import remarks as notes
from labkit.watch.program import start
from labkit.watch.takeover import Replayed, waiting
from labkit.watch.watcher import Watch

SAME, OTHER, UNUSABLE = 0, 1, 2  # exit codes: as expected, otherwise, no replay
WHAT_STEP_NEEDS = (
    "The capsule holds data and no code, so the training's own program is started again: its "
    "imports, its model and its data are made as always. At the first batch that it watches the "
    "capsule's state and batch take over, one step is traced, and the program ends there."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script.

    Returns:
        0: as expected. That is reproduced to the bit, or with ``--expect healthy`` a step that
        runs well and a tracer that is silent. 1: something else; 2: the capsule or the program
        is unusable.
    """
    given = _parser().parse_args(arguments)
    try:
        capsule = load(given.file)
        print(capsule)
        step, argv = given.step or capsule.program["step"], given.argv or capsule.program["argv"]
        if not step:
            raise ValueError(
                "the capsule does not know its program (a notebook, or a function with "
                f"arguments); give --step. {WHAT_STEP_NEEDS}"
            )
        print(f"replay: {Path(step).name} ...", flush=True)
        return _report(capsule, replay(capsule, step, argv), given.expect == "healthy")
    except (ValueError, OSError) as wrong:
        print(f"labkit replay: {wrong}", file=sys.stderr)
        return UNUSABLE


def replay(capsule: Capsule, step: str, argv: Sequence[str] = ()) -> Finding:
    """Start the program, and let the capsule take over its first watched batch.

    Args:
        capsule: what `load` returned.
        step: ``module:function``, ``module`` or a script. A function is called without
            arguments; it may train, or only return a `Watch` that has a step.
        argv: arguments of the script.

    Returns:
        A `Finding`, with the report of the traced step.

    Raises:
        ValueError: there is no such program, or it watched no batch.
    """
    kept, path, folder = sys.argv, list(sys.path), os.getcwd()
    try:
        with waiting(capsule):
            watched = start(step, argv)
            if isinstance(watched, Watch) and watched.step is not None:
                watched.replay()
    except Replayed as done:
        return done.finding
    finally:
        sys.argv, sys.path[:] = kept, path
        os.chdir(folder)
    raise ValueError(f"{step}: expected a program that watches a batch; it ended without one")


def _report(capsule: Capsule, finding: Finding, repair: bool) -> int:
    """Print what the step did; is it what was expected?"""
    print(finding.report)
    print(finding.report.explain())
    here = versions()
    for name, version in capsule.versions.items():
        if here[name] != version:
            print(f"{name} was {version} and is {here[name]}: bits may differ")
    if not finding.again:
        return _ran_well(finding, repair)
    told = notes(finding, False)
    recorded, now = capsule.report.culprit, finding.report.culprit
    if str(recorded) != str(now):
        told = (*told, f"not reproduced: the culprit was {recorded}, and is {now}")
    print(*(told or ("reproduced to the bit",)), sep="\n")
    return SAME if not (told or repair) else OTHER


def _ran_well(finding: Finding, repair: bool) -> int:
    """The step that died lives: is the program repaired, or is it another step?"""
    told = list(notes(finding, False))
    healthy = finding.report.verdict == "healthy"
    if repair:
        told[-1] = "repaired: the step ran well" if healthy else "finite, but not healthy"
    else:
        told.append("if that is what a repair has done, replay it with --expect healthy")
    print(*told, sep="\n")
    return SAME if healthy and repair else OTHER


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="labkit", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="replay")
    one = commands.add_parser("replay", help="run a capsule's step", description=WHAT_STEP_NEEDS)
    one.add_argument("file", type=Path, help="the capsule")
    one.add_argument("--step", help="module:function, module or script.py; default: as recorded")
    one.add_argument(
        "--expect",
        choices=("blowup", "healthy"),
        default="blowup",
        help="what makes the exit code 0: the step dies as it did (default), or it runs well, "
        "which makes of the capsule a test of the repair",
    )
    one.add_argument("argv", nargs="*", help="arguments of the script, behind --")
    return parser


if __name__ == "__main__":
    sys.exit(main())
