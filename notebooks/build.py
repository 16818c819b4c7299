"""Make the notebooks from their texts.

    python notebooks/build.py                     every notebook
    python notebooks/build.py exploding_logvar    some of them
    python notebooks/build.py --maps              measure the failure maps anew first
    python notebooks/build.py --translations      run nothing; renew the other languages alone
    python notebooks/build.py --check             change nothing; fail if a notebook would change

Edit ``notebooks/text/NN_slug.py``, never the notebook: a build replaces it.
"""

import argparse
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
from builder.maps import map_faults, measure
from builder.outline import faults, name_of
from builder.run import dumps, run, tidy
from builder.text import read_text
from builder.translation import LANGUAGES, translate
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

HERE = Path(__file__).resolve().parent
SLOWEST = 8.0  # CPU seconds for a cell: a reader who waits longer thinks that it hangs


@dataclass(frozen=True)
class Built:
    """What a build made: the file's text, and what is wrong with it."""

    text: str
    faults: tuple[str, ...]
    seconds: float = 0.0


def build(text: Path, folder: Path = HERE, slowest: float = SLOWEST) -> Built:
    """Run a text as a notebook; nothing is written.

    Args:
        text: the py:percent file.
        folder: where the kernel runs.
        slowest: CPU seconds that one cell may take.
    """
    notebook = read_text(text)
    try:
        clock = run(notebook, folder)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
        return Built("", (f"a cell failed, and nothing was written:\n{plain}",))
    tidy(notebook)
    slow = [
        f"{name_of(index, notebook.cells[index])}: took {seconds:.1f} s; at most {slowest:g} s"
        for index, seconds in clock.items()
        if seconds > slowest
    ]
    return Built(dumps(notebook), (*faults(notebook), *slow), sum(clock.values()))


def texts(names: list[str], folder: Path = HERE) -> list[Path]:
    """The texts of some notebooks, named by slug, number and slug, or path; all if none is named.

    Raises:
        ValueError: no such notebook; the message lists what exists.
    """
    known = sorted((folder / "text").glob("[0-9][0-9]_*.py"))
    wanted = {Path(name).stem for name in names}
    chosen = [path for path in known if not names or {path.stem, path.stem[3:]} & wanted]
    missing = wanted - {word for path in chosen for word in (path.stem, path.stem[3:])}
    if missing:
        exist = ", ".join(path.stem for path in known)
        raise ValueError(f"notebook: expected some of {exist}; got {', '.join(sorted(missing))}")
    return chosen


def write(path: Path, text: str) -> None:
    """Replace a file in one step, so that a build that is cut off leaves the old one whole."""
    draft = path.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def changes(old: str, new: str) -> str:
    """Where two notebooks differ first, in words."""
    if not old:
        return "new"
    before, after = (nbformat.reads(text, as_version=4).cells for text in (old, new))
    for index, (was, now) in enumerate(zip(before, after, strict=False)):
        if was != now:
            parts = [key for key in now if was.get(key) != now[key]]
            return f"changed from {name_of(index, now)} on: {', '.join(parts)}"
    if len(before) != len(after):
        return f"changed: {len(before)} cells before, {len(after)} now"
    return "unchanged" if old == new else "changed in its metadata"


def main(arguments: list[str] | None = None, folder: Path = HERE) -> int:
    """Build from the command line; 0 if all is well. With --check a change is not."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("slug", nargs="*", help="notebooks to build; all if none is named")
    parser.add_argument("--maps", action="store_true", help="measure the failure maps anew")
    parser.add_argument(
        "--translations", action="store_true", help="run nothing; renew the other languages alone"
    )
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a change")
    options = parser.parse_args(arguments)
    try:
        chosen = texts(options.slug, folder)
    except ValueError as error:
        parser.error(str(error))
    if options.maps and options.check:
        parser.error("--maps writes the maps, and --check shall write nothing: choose one")
    for text in chosen if options.maps else ():
        print(f"{text.stem}: {measure(text.stem[3:]) or 'no map'}", flush=True)
    results = []
    for text in chosen:
        if not options.translations:
            results.append(_one(text, folder, options.check))
        for language in LANGUAGES:
            own = folder / "text" / language / text.name
            results += [_translation(own, folder, options.check)] if own.exists() else []
    return 0 if all(results) else 1


def _one(text: Path, folder: Path, check: bool) -> bool:
    target = folder / f"{text.stem}.ipynb"
    old = target.read_text(encoding="utf-8") if target.exists() else ""
    built = build(text, folder)
    change = changes(old, built.text) if built.text else "failed"
    print(f"{text.stem}: {change}; {built.seconds:.1f} s, {len(built.text.encode()) // 1000} kB")
    found = [*built.faults, *(map_faults(text.stem[3:]) if folder == HERE else ())]
    for fault in found:
        print(f"  ✗ {fault}")
    if built.text and built.text != old and not check:
        write(target, built.text)
    return not found and not (check and built.text != old)


def _translation(text: Path, folder: Path, check: bool) -> bool:
    """Renew one notebook in another language from the stored English one; nothing is run."""
    made = translate(nbformat.read(folder / f"{text.stem}.ipynb", as_version=4), text)
    target = folder / text.parent.name / f"{text.stem}.ipynb"
    old = target.read_text(encoding="utf-8") if target.exists() else ""
    new = dumps(made.notebook)
    print(f"{text.parent.name}/{text.stem}: {changes(old, new)}")
    for line in [*(f"✗ {fault}" for fault in made.faults), *(f"! {line}" for line in made.old)]:
        print(f"  {line}")
    if new != old and not made.faults and not check:
        target.parent.mkdir(exist_ok=True)
        write(target, new)
    return not made.faults and not (check and new != old)


if __name__ == "__main__":
    sys.exit(main())
