"""Rules on a whole notebook: its kind, its headings in order, what each section must hold."""

import ast
import re
from collections.abc import Iterator

from nbformat import NotebookNode

from builder.cells import cell_faults, tags
from builder.run import dumps

HEADINGS = {
    "failure": (
        "The guide says", "Predict", "Break", "Look", "Turn", "Strip", "Why", "Repair", "Check",
        "Compare", "Contract",
    ),
    "tool": (
        "Question", "Instrument", "What it sees", "What it misses", "Try it on yours", "Contract",
    ),
    "index": None,  # free, but it must have some
}  # fmt: skip
CELLS = {"failure": (14, 24), "tool": (6, 28), "index": (3, 40)}
SHOWS = ("Break", "Look", "Turn", "Strip", "Check", "Compare")  # each must leave something to see
SETUP_LINES = 6
WHY_WORDS = 150
BYTES = 500_000
NUMBER = r"(?:\d+|one|two|three|four|five|six|seven|eight)"

Sections = dict[str, list[NotebookNode]]


def faults(notebook: NotebookNode) -> list[str]:
    """Everything that is wrong with a notebook, in the order of its cells; empty if nothing.

    Args:
        notebook: executed, as it is stored.
    """
    cells = notebook.cells
    found = [*_opening(cells), *_kind(notebook), *_counts(cells)]
    for index, cell in enumerate(cells):
        below = cells[index + 1] if index + 1 < len(cells) else None
        found += [f"{name_of(index, cell)}: {fault}" for fault in cell_faults(cell, below)]
    size = len(dumps(notebook).encode())
    if size > BYTES:
        found.append(f"{size // 1000} kB; expected at most {BYTES // 1000} kB")
    return found


def name_of(index: int, cell: NotebookNode) -> str:
    """How a message names a cell: its place, counted from 1, and its first line."""
    first = cell.source.strip().partition("\n")[0]
    return f"cell {index + 1} ({first[:50]})"


def sections(cells: list[NotebookNode]) -> Sections:
    """The cells by level-2 heading. A markdown cell is split where a heading stands in it."""
    found: Sections = {"": []}
    for cell in cells:
        if cell.cell_type != "markdown":
            found[list(found)[-1]].append(cell)
            continue
        start, *parts = re.split(r"^## +(.+?)\s*$", cell.source, flags=re.MULTILINE)
        found[list(found)[-1]].append(NotebookNode(cell_type="markdown", source=start))
        for heading, text in zip(parts[::2], parts[1::2], strict=True):
            found.setdefault(heading, []).append(NotebookNode(cell_type="markdown", source=text))
    return found


def _kind(notebook: NotebookNode) -> Iterator[str]:
    kind = notebook.metadata.get("labkit", {}).get("kind")
    if kind not in HEADINGS:
        yield f"kind: expected one of {', '.join(HEADINGS)} in metadata.labkit.kind; got {kind!r}"
        return
    fewest, most = CELLS[kind]
    if not fewest <= len(notebook.cells) <= most:
        yield f"{len(notebook.cells)} cells; a {kind} notebook has {fewest} to {most}"
    given, wanted = headings(notebook.cells), HEADINGS[kind]
    if wanted is None:
        if not given:
            yield "no heading of level 2"
    elif tuple(given) != wanted:
        yield from _difference(given, wanted)
    else:
        yield from RULES[kind](sections(notebook.cells))


def headings(cells: list[NotebookNode]) -> list[str]:
    """The level-2 headings, as they stand."""
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return re.findall(r"^## +(.+?)\s*$", text, flags=re.MULTILINE)


def _difference(given: list[str], wanted: tuple[str, ...]) -> Iterator[str]:
    place = next(
        (i for i, pair in enumerate(zip(given, wanted, strict=False)) if pair[0] != pair[1]),
        min(len(given), len(wanted)),
    )
    came = given[place] if place < len(given) else "the end"
    expected = wanted[place] if place < len(wanted) else "the end"
    yield f"heading {place + 1}: expected {expected!r}, got {came!r}; order: {', '.join(wanted)}"


def _opening(cells: list[NotebookNode]) -> Iterator[str]:
    """Title, nickname and symptom; what the reader will do, needs and how long it takes."""
    code = (i for i, cell in enumerate(cells) if cell.cell_type == "code")
    first = next(code, len(cells))
    text = _prose(cells[:first])
    if not re.match(r"# \S.*\n\s*\S", text):
        yield "opening: expected a title, and nickname and symptom in the lines below it"
    words = r"You will\b.*You need\b.*Minutes\W+\d"
    if not re.search(words, text, flags=re.DOTALL):
        yield "opening: expected the words You will, You need and Minutes with a number, in order"
    if first == len(cells) or len(cells[first].source.splitlines()) > SETUP_LINES:
        yield f"set-up: expected a first code cell of at most {SETUP_LINES} lines"


def _counts(cells: list[NotebookNode]) -> Iterator[str]:
    counts = [cell.execution_count for cell in cells if cell.cell_type == "code"]
    if None not in counts and counts != list(range(1, len(counts) + 1)):
        yield f"execution counts {counts}: not one run from top to bottom; build the notebook"


def _failure(parts: Sections) -> Iterator[str]:
    code = {name: [c for c in cells if c.cell_type == "code"] for name, cells in parts.items()}
    prose = {name: _prose(cells) for name, cells in parts.items()}
    if "?" not in prose["Predict"] or len(re.findall(r"^[-*] ", prose["Predict"], re.M)) < 2:
        yield "Predict: expected a question and a list of at least two choices"
    if _folds(parts["Predict"]) < 1:
        yield "Predict: expected the answer folded in <details>"
    if not any("predict(" in cell.source for cell in code["Predict"]):
        yield "Predict: expected a cell with predict(bench) before the answer"
    for name in SHOWS:
        if not any(cell.outputs for cell in code[name]):
            yield f"{name}: expected a code cell with a stored output"
    if not re.search(r"^### What to see$", prose["Look"], re.M):
        yield "Look: expected a heading ### What to see below the figure"
    yield from _why(prose["Why"])
    yield from _exercise(code)
    if _folds(parts["Check"]) < 3:
        yield "Check: expected two hints and the answer below it, each folded in <details>"
    if _asserts(code["Contract"]) < 2:
        yield "Contract: expected at least two asserts"


def _tool(parts: Sections) -> Iterator[str]:
    code = {name: [c for c in cells if c.cell_type == "code"] for name, cells in parts.items()}
    question = _prose(parts["Question"])
    if "?" not in question or len(re.findall(r"^[-*] ", question, re.M)) < 2:
        yield "Question: expected a question and a list of at least two choices"
    if _folds(parts["Question"]) < 1:
        yield "Question: expected the answer folded in <details>"
    for name in ("Instrument", "What it sees", "What it misses"):
        if not any(cell.outputs for cell in code[name]):
            yield f"{name}: expected a code cell with a stored output"
    if not re.search(r"^### What to see$", _prose(parts["What it sees"]), re.M):
        yield "What it sees: expected a heading ### What to see below the figure"
    yield from _exercise(code, stub="Try it on yours", check="Try it on yours")
    if _asserts(code["Contract"]) < 2:
        yield "Contract: expected at least two asserts"


RULES = {"failure": _failure, "tool": _tool}


def _why(text: str) -> Iterator[str]:
    equations = re.findall(r"\$\$.+?\$\$", text, flags=re.DOTALL)
    if len(equations) != 1:
        yield f"Why: expected one equation between $$; got {len(equations)}"
    words = len(re.sub(r"\$\$.+?\$\$", "", text, flags=re.DOTALL).split())
    if words > WHY_WORDS:
        yield f"Why: {words} words; expected at most {WHY_WORDS}"
    if not re.search(r"\[\d+\]", text):
        yield "Why: expected a numbered source, such as [1]"


def _exercise(
    code: dict[str, list[NotebookNode]], stub: str = "Repair", check: str = "Check"
) -> Iterator[str]:
    stubs = [cell for cell in code[stub] if "exercise" in tags(cell)]
    if len(stubs) != 1:
        yield f"{stub}: expected one code cell tagged exercise; got {len(stubs)}"
    for cell in stubs:
        if not re.search(rf"#.*\b{NUMBER} lines?\b", cell.source, flags=re.IGNORECASE):
            yield f"{stub}: expected a comment that says how many lines are needed"
    if not any(re.search(r"(?<!def )\bcheck\(", cell.source) for cell in code[check]):
        yield f"{check}: expected a call of check(…)"


def _asserts(cells: list[NotebookNode]) -> int:
    nodes = (node for cell in cells for node in ast.walk(ast.parse(cell.source)))
    return sum(isinstance(node, ast.Assert) for node in nodes)


def _folds(cells: list[NotebookNode]) -> int:
    """Folded answers, in markdown or put out by code."""
    shown = [
        out.get("data", {}).get("text/html", "") for c in cells for out in c.get("outputs", ())
    ]
    return sum(text.count("<details>") for text in [*shown, *(cell.source for cell in cells)])


def _prose(cells: list[NotebookNode]) -> str:
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
