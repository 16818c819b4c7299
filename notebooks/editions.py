"""Make the two editions for a workshop: ``python notebooks/editions.py [FOLDER]``.

``learner/`` holds the notebooks with nothing run. ``facilitator/`` holds them with outputs, every
answer and hint open, and what WORKSHOP.md says of each after its title. Both come from the stored
notebooks: there is no second text that could drift.
"""

import argparse
import shutil
import sys
from pathlib import Path

import nbformat
from builder.editions import facilitator, learner, notes

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def make(folder: Path) -> list[str]:
    """Write both editions; returns the names of the notebooks."""
    said = notes((ROOT / "WORKSHOP.md").read_text(encoding="utf-8"))
    stored = sorted(HERE.glob("[0-9][0-9]_*.ipynb"))
    missing = [path.stem for path in stored if path.stem not in said]
    if missing:
        raise ValueError(f"WORKSHOP.md: expected a section for every notebook; no {missing[0]}")
    for edition in ("learner", "facilitator"):
        shutil.rmtree(folder / edition, ignore_errors=True)
        (folder / edition).mkdir(parents=True)
    for path in stored:
        notebook = nbformat.read(path, as_version=4)
        nbformat.write(learner(notebook), folder / "learner" / path.name)
        told = facilitator(notebook, said[path.stem])
        nbformat.write(told, folder / "facilitator" / path.name)
    return [path.stem for path in stored]


def main(arguments: list[str] | None = None) -> int:
    """From the command line; 0 if both editions were written."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "workshop")
    folder = parser.parse_args(arguments).folder
    made = make(folder)
    print(f"{len(made)} notebooks in {folder.name}/learner and {folder.name}/facilitator")
    return 0


if __name__ == "__main__":
    sys.exit(main())
