"""Each way to be wrong, planted in a sound notebook, is refused with a message that says what."""

import re
from collections.abc import Callable

import nbformat
import pytest
from builder.outline import faults
from nbformat import NotebookNode


@pytest.fixture
def sound(built) -> NotebookNode:
    """The sound failure notebook, as stored."""
    return nbformat.read(built / "01_flooded_cellar.ipynb", as_version=4)


def cell(notebook: NotebookNode, text: str) -> NotebookNode:
    """The first cell that holds a text."""
    return next(cell for cell in notebook.cells if text in cell.source)


def swap(old: str, new: str) -> Callable[[NotebookNode], None]:
    """Put one text in place of another, in the first cell that has it."""

    def plant(notebook: NotebookNode) -> None:
        where = cell(notebook, old)
        where.source = where.source.replace(old, new)

    return plant


def line(code: str) -> Callable[[NotebookNode], None]:
    """Add a line to a code cell that has room."""
    return swap("print(*LEVELS)", f"print(*LEVELS)\n{code}")


def strip(text: str) -> Callable[[NotebookNode], None]:
    """Take the outputs of a cell away."""
    return lambda notebook: cell(notebook, text).update(outputs=[])


def store(where: str, /, **output) -> Callable[[NotebookNode], None]:
    """Add an output to the cell that holds a text."""
    return lambda notebook: cell(notebook, where).outputs.append(nbformat.from_dict(output))


def kind(word: str | None) -> Callable[[NotebookNode], None]:
    return lambda notebook: notebook.metadata.update(labkit={"kind": word})


def counts(notebook: NotebookNode) -> None:
    cell(notebook, "print(*LEVELS)").execution_count = 99


def unrun(notebook: NotebookNode) -> None:
    cell(notebook, "print(*LEVELS)").execution_count = None


def many_cells(notebook: NotebookNode) -> None:
    notebook.cells += [nbformat.v4.new_markdown_cell("And on.") for _ in range(9)]


def untag(notebook: NotebookNode) -> None:
    cell(notebook, "1 / 0").metadata.tags = []


def no_alt(notebook: NotebookNode) -> None:
    next(cell for cell in notebook.cells if "alt" in cell.metadata).metadata.pop("alt")


def no_stub(notebook: NotebookNode) -> None:
    cell(notebook, "def repair").metadata.tags = []


def raw(notebook: NotebookNode) -> None:
    notebook.cells.append(nbformat.v4.new_raw_cell("words"))


HOME = "/ho" + "me/somebody"  # in two parts, so that this file holds no such path
STREAM = {"output_type": "stream", "name": "stderr", "text": "UserWarning: wet\n"}
LONG_WHY = "Every step multiplies the level [1]." + " Water rises." * 80
TOO_LONG = "\n".join(f"level = {i}" for i in range(10))

PLANTED = {
    "no kind": (kind(None), "kind: expected one of failure, tool, index"),
    "unknown kind": (kind("poem"), "got 'poem'"),
    "headings of another kind": (kind("tool"), "heading 1: expected 'Question'"),
    "too many cells": (many_cells, "a failure notebook has 14 to 24"),
    "heading missing": (swap("## Strip", "So:"), "heading 6: expected 'Strip', got 'Why'"),
    "heading misspelt": (swap("## Compare", "## Comparison"), "got 'Comparison'"),
    "headings swapped": (swap("## Look", "## Turn"), "expected 'Look', got 'Turn'"),
    "heading too many": (swap("Next:", "## More\n"), "expected 'the end', got 'More'"),
    "no title": (swap("# Flooded cellar", "Flooded cellar"), "opening: expected a title"),
    "no symptom": (swap("The one with", "## The one with"), "heading 1"),
    "no need": (swap("You need", "Bring"), "You will, You need and Minutes"),
    "no minutes": (swap("**Minutes**: 5.", "**Minutes**: few."), "Minutes with a number"),
    "long set-up": (swap("LEVELS =", "a = 1\n" * 6 + "LEVELS ="), "set-up: expected a first"),
    "no choices": (swap("- it grows", "or it grows"), "Predict: expected a question and a list"),
    "no question": (swap("third step?", "third step."), "Predict: expected a question"),
    "open answer": (
        swap("<details>\n<summary>Answer</summary>\n\nIt grows.\n</details>", "It grows."),
        "Predict: expected the answer folded",
    ),
    "nobody is asked": (swap('predict("detach")', '"detach"'), "expected a cell with predict"),
    "nothing to see in Strip": (strip("print(*LEVELS)"), "Strip: expected a code cell"),
    "nothing to compare": (strip('print("broken'), "Compare: expected a code cell"),
    "figure unexplained": (swap("### What to see", "### Then"), "Look: expected a heading"),
    "no equation": (swap("$$\nh_{n+1} = 3 h_n\n$$", "h"), "Why: expected one equation"),
    "long why": (swap("Every step multiplies the level [1].", LONG_WHY), "at most 150"),
    "no source": (swap("[1]", "by Archimedes"), "Why: expected a numbered source"),
    "no stub": (no_stub, "one code cell tagged exercise; got 0"),
    "stub without length": (swap("# one line is needed", "# write it"), "how many lines"),
    "no check": (swap("check(repair)", "repair"), "Check: expected a call of check"),
    "hint open": (
        swap("<details>\n<summary>First hint</summary>\n\nWhere is the tap?\n</details>", "Tap."),
        "Check: expected two hints and the answer",
    ),
    "one assert": (swap("assert LEVELS[0] == 0\n", ""), "Contract: expected at least two asserts"),
    "never executed": (unrun, "was never executed"),
    "run out of order": (counts, "not one run from top to bottom"),
    "long cell": (swap("print(*LEVELS)", TOO_LONG + "\nlevel = 0"), "11 lines of code"),
    "empty cell": (swap("print(*LEVELS)", ""), "0 lines of code"),
    "magic": (swap("print(*LEVELS)", "%time print(*LEVELS)"), "not plain Python"),
    "numpy": (line("import numpy as np"), "imports numpy"),
    "matplotlib at large": (line("import matplotlib"), "imports matplotlib;"),
    "a look-alike": (line("from labkitten import purr"), "imports labkitten.purr"),
    "interact": (line("from labkit.panel import interact"), "uses `interact`"),
    "Output": (line("box = widgets.Output()"), "uses `Output`"),
    "semicolon": (swap("print(*LEVELS)", "print(*LEVELS);"), "a `;`"),
    "path in source": (line(f"open('{HOME}/x')"), "source holds a path of one machine"),
    "path in prose": (swap("Carry away:", f"Look at {HOME}/x:"), "source holds a path"),
    "path in error": (
        store("1 / 0", output_type="error", ename="E", evalue=f"in {HOME}", traceback=[]),
        "output holds a path",
    ),
    "address": (
        store("print(*LEVELS)", output_type="display_data", metadata={}, data={
            "text/plain": "<object at 0x7f2a>"
        }),
        "memory address",
    ),
    "stderr": (store("print(*LEVELS)", **STREAM), "writes to stderr (UserWarning: wet)"),
    "widget alone": (
        store("print(*LEVELS)", output_type="display_data", metadata={}, data={
            "application/vnd.jupyter.widget-view+json": {}, "text/plain": "Panel"
        }),
        "stores a widget that needs its kernel",
    ),
    "error lost": (strip("1 / 0"), "tagged raises-exception, but stores no error"),
    "error untagged": (untag, "stores an error without the tag"),
    "figure without words": (no_alt, "shows a figure without alt text"),
    "details unclosed": (swap("It grows.\n</details>", "It grows."), "expected as many of each"),
    "details would not render": (swap("Answer</summary>\n", "Answer</summary>"), "empty line"),
    "raw cell": (raw, "a raw cell; expected markdown or code"),
    "too large": (swap("Carry away:", "Carry away: " + "x" * 500_000), "expected at most 500 kB"),
}  # fmt: skip


def test_the_sound_notebook_has_no_fault(sound):
    assert faults(sound) == []


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_refused(sound, name):
    plant, message = PLANTED[name]
    plant(sound)
    found = faults(sound)
    assert [fault for fault in found if message in fault], found


def test_a_message_names_the_cell(sound):
    line("import numpy")(sound)
    (fault,) = faults(sound)
    assert re.match(r"cell 13 \(print\(\*LEVELS\)\): imports numpy; a notebook imports", fault)


TOOL = {
    "Question": "What breaks?\n- a\n- b\n\n<details><summary>Answer</summary>\n\nThis.\n</details>",
    "Instrument": "",
    "What it sees": "### What to see\nA scale.",
    "What it misses": "",
    "Try it on yours": "Write it.",
    "Contract": "",
}
TOOL_CODE = {
    "Instrument": "print(1)",
    "What it sees": "print(2)",
    "What it misses": "print(3)",
    "Try it on yours": "def mine():  # one line is enough\n    ...",
    "Contract": "assert weight == 1\nassert weight < 2",
}
TOOL_PLANTED = {
    "no contract": ("## Contract", "heading 6: expected 'Contract', got 'the end'"),
    "no choices": ("- a\n", "Question: expected a question and a list"),
    "open answer": ("<details>", "Question: expected the answer folded"),
    "nothing to see": ("### What to see", "What it sees: expected a heading"),
    "no check": ("check(mine)", "Try it on yours: expected a call of check"),
    "stub without length": ("  # one line is enough", "how many lines are needed"),
    "one assert": ("\nassert weight < 2", "Contract: expected at least two asserts"),
}


@pytest.fixture
def tool(sound) -> NotebookNode:
    """A sound notebook of the kind tool."""
    opening = "# Scales\nWeigh it.\n\nYou will weigh. You need one. Minutes: 2.\n"
    cells = [nbformat.v4.new_markdown_cell(opening), nbformat.v4.new_code_cell("weight = 1")]
    for heading, text in TOOL.items():
        cells.append(nbformat.v4.new_markdown_cell(f"## {heading}\n{text}"))
        if heading in TOOL_CODE:
            cells.append(nbformat.v4.new_code_cell(TOOL_CODE[heading]))
    stub = next(cell for cell in cells if "def mine" in cell.source)
    stub.metadata.tags = ["exercise"]
    cells.insert(cells.index(stub) + 1, nbformat.v4.new_code_cell("check(mine)"))
    shown = nbformat.v4.new_output("stream", name="stdout", text="1\n")
    for count, each in enumerate((c for c in cells if c.cell_type == "code"), 1):
        each.update(execution_count=count, outputs=[shown] if "print" in each.source else [])
    sound.cells = cells
    kind("tool")(sound)
    return sound


def test_a_sound_tool_has_no_fault(tool):
    assert faults(tool) == []


@pytest.mark.parametrize("name", TOOL_PLANTED)
def test_a_fault_planted_in_a_tool_is_refused(tool, name):
    text, message = TOOL_PLANTED[name]
    swap(text, "")(tool)
    found = faults(tool)
    assert [fault for fault in found if message in fault], found


@pytest.mark.parametrize("name", ["Instrument", "What it sees", "What it misses"])
def test_a_tool_that_shows_nothing_is_refused(tool, name):
    strip(TOOL_CODE[name])(tool)
    assert f"{name}: expected a code cell with a stored output" in faults(tool)


def test_an_index_has_headings_of_its_own(tool):
    kind("index")(tool)
    assert faults(tool) == []
    tool.cells = [*tool.cells[:2], nbformat.v4.new_markdown_cell("Words.")]
    assert faults(tool) == ["no heading of level 2"]
