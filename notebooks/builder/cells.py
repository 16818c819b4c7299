"""Rules that every cell keeps in every kind of notebook; each yields what is wrong in words."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator

from nbformat import NotebookNode

from builder.run import WIDGET

LONGEST = 10  # lines of a code cell: more does not fit one idea
ALLOWED = ("labkit", "torch", "matplotlib.pyplot")
SWALLOWS = {
    "interact", "interactive", "interact_manual", "interactive_output", "Output", "clear_output",
    "update_display",
}  # fmt: skip
HOME = r"(?<![\w.])/(?:work|root|tmp|home|Users|private|mnt|opt|var)/\w|[A-Z]:\\Users|~/\w"
ADDRESS = r"\bat 0x[0-9a-f]+\b"


def cell_faults(cell: NotebookNode, after: NotebookNode | None) -> Iterator[str]:
    """What is wrong with one cell.

    Args:
        cell: the cell.
        after: the one below it, or None.
    """
    yield from _paths("source", cell.source)
    if cell.cell_type == "markdown":
        yield from _folds(cell.source)
    elif cell.cell_type == "code":
        yield from _length(cell.source)
        yield from _code(cell.source)
        yield from _run(cell)
        yield from _figures(cell, after)
        for output in cell.outputs:
            yield from _output(output)
    else:
        yield f"a {cell.cell_type} cell; expected markdown or code"


def is_figure(output: NotebookNode) -> bool:
    """Whether a reader sees a picture."""
    return "image/png" in output.get("data", {})


def tags(cell: NotebookNode) -> list[str]:
    """The cell's tags."""
    return cell.metadata.get("tags", [])


def _length(source: str) -> Iterator[str]:
    lines = len(source.splitlines())
    if not 1 <= lines <= LONGEST:
        yield f"{lines} lines of code; expected 1 to {LONGEST}"


def _code(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        yield f"not plain Python ({error.msg}); magics and shell lines have no place here"
        return
    yield from _imports(tree)
    names = {getattr(node, "id", getattr(node, "attr", None)) for node in ast.walk(tree)}
    names |= {alias.name for node in ast.walk(tree) for alias in getattr(node, "names", ())
              if isinstance(alias, ast.alias)}  # fmt: skip
    for name in sorted(names & SWALLOWS):
        yield f"uses `{name}`, which swallows exceptions or defeats nbval; use a panel"
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    if any(token.type == tokenize.OP and token.string == ";" for token in tokens):
        yield "a `;`: at the end of a line it hides the output that nbval compares"


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            if not any(f"{module}.".startswith(f"{allowed}.") for allowed in ALLOWED):
                yield f"imports {module}; a notebook imports {', '.join(ALLOWED)} alone"


def _run(cell: NotebookNode) -> Iterator[str]:
    if cell.execution_count is None:
        yield "was never executed, so nbval compares nothing; build the notebook"
    failed = any(output.output_type == "error" for output in cell.outputs)
    if "raises-exception" in tags(cell) and not failed:
        yield "is tagged raises-exception, but stores no error"
    if failed and "raises-exception" not in tags(cell):
        yield "stores an error without the tag raises-exception"


def _output(output: NotebookNode) -> Iterator[str]:
    if output.get("name") == "stderr":
        first = output.text.strip().partition("\n")[0]
        yield f"writes to stderr ({first}); a warning in a notebook is a failed build"
    data = output.get("data", {})
    if WIDGET in data:
        yield "stores a widget that needs its kernel; put image/png and text/plain beside it"
    words = [output.get("text", ""), output.get("evalue", ""), *output.get("traceback", ())]
    words += [str(value) for mime, value in data.items() if mime.startswith("text/")]
    for text in words:
        yield from _paths("output", text)
        if found := re.search(ADDRESS, text):
            yield f"output holds a memory address ({found[0]}), which changes in every run"


def _figures(cell: NotebookNode, after: NotebookNode | None) -> Iterator[str]:
    figures = [output for output in cell.outputs if is_figure(output)]
    named = cell.metadata.get("alt") or all(
        output.metadata.get("image/png", {}).get("alt") for output in figures
    )
    told = after is not None and after.cell_type == "markdown" and after.source[:3] != "## "
    if figures and not named and not told:
        yield "shows a figure without alt text, and the cell below does not say what to see"


def _folds(source: str) -> Iterator[str]:
    opened, closed = source.count("<details>"), source.count("</details>")
    summaries = len(re.findall(r"<details>\s*<summary>.+?</summary>\n\s*\n", source))
    if not opened == closed == summaries:
        yield (
            f"{opened} <details>, {closed} </details>, {summaries} <summary>…</summary> with an "
            "empty line below; expected as many of each"
        )


def _paths(where: str, text: str) -> Iterator[str]:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    if found := re.search(HOME + r"[^\s'\"]*", plain):
        yield f"{where} holds a path of one machine ({found[0]})"
