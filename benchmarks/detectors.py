"""Score every detector on the corpus, in one run: ``python -m benchmarks.detectors``."""

import argparse
from collections.abc import Iterable

import torch

from labkit.probes.verdict import Verdict
from tests.probes.corpus.case import Case
from tests.probes.corpus.rivals import RIVALS, ask, judge
from tests.probes.corpus.run import Score, run, score
from tests.probes.corpus.sets import SETS, about

OURS = "labkit.trace"


def measure(name: str, cases: Iterable[Case]) -> tuple[list[Score], int, int]:
    """Scores on the broken forms; alarms on, and number of, the forms that are healthy."""
    scores, alarms, silent = [], 0, 0
    for case in cases:
        for broken in (True, False):
            if broken and not case.healthy:
                scores.append(_score(name, case))
            else:
                silent += 1
                alarms += _alarmed(name, case, broken)
    return scores, alarms, silent


def _score(name: str, case: Case) -> Score:
    if name == OURS:
        return score(case, run(case, True))
    return judge(case, ask(name, case, True))


def _alarmed(name: str, case: Case, broken: bool) -> bool:
    if name == OURS:
        return run(case, broken).verdict is not Verdict.HEALTHY
    return ask(name, case, broken).flagged


def table(cases: tuple[Case, ...]) -> str:
    """One row per detector; shares of the faulty programs, then false alarms."""
    faults = sum(not case.healthy for case in cases)
    rows = [
        f"{'detector':24} {'flagged':>8} {'op':>6} {'line':>6} {'params':>7} {'false alarms':>13}"
    ]
    for name in (OURS, *RIVALS):
        scores, alarms, silent = measure(name, cases)
        parts = ("flagged", "op", "line", "parameters")
        shares = [sum(getattr(s, part) for s in scores) / faults for part in parts]
        flagged, op, line, parameters = (f"{share:.0%}" for share in shares)
        rows.append(
            f"{name:24} {flagged:>8} {op:>6} {line:>6} {parameters:>7} {alarms:>5} of {silent}"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--group", help="only one group of programs")
    group = parser.parse_args().group
    torch.set_num_threads(1)
    for name, cases in SETS.items():
        chosen = tuple(case for case in cases if group in (None, case.group))
        if chosen:
            faulty = sum(not case.healthy for case in chosen)
            print(f"\n{about(name)} {len(chosen)} programs, {faulty} of them faulty")
            print(table(chosen))
