"""Prints the facilitator's key: ``python -m labkit.whodunit 0 25`` for the seeds 0 to 24."""

import argparse

from labkit.whodunit import key

parser = argparse.ArgumentParser(prog="python -m labkit.whodunit", description=__doc__)
parser.add_argument("first", type=int, help="the first seed")
parser.add_argument("end", type=int, help="the seed before which to stop")
asked = parser.parse_args()
if not 0 <= asked.first < asked.end:
    parser.error(f"expected 0 <= first < end, got {asked.first} and {asked.end}")
print(key(range(asked.first, asked.end)))
